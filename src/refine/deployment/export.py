"""A model as one file for other programs: ONNX, or a program of `torch.export`.

The file takes pixels float32 [N, 3, side, side] in [0, 1], RGB, for any N from 1 on, and gives probabilities float32
[N, K]. Everything between is inside: normalization, transform, classifier, softmax and label map. It does not check the
range of its input.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from refine.core.errors import UserError
from refine.core.files import new_file
from refine.defending.protocol.defense import Defense
from refine.deployment.check import Checked, Run, compared, onnx_runtime
from refine.deployment.model import Model
from refine.shards.format.preparation import Preparation

Format = Literal["onnx", "pt2"]

INPUT, OUTPUT = "pixels", "probabilities"
FORMAT_VERSION = 1
_PREFIX = "refine."
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_LARGEST = 2**31
"""Bytes of an ONNX file, a bound of its format."""


class Probabilities(nn.Module):
    """What is exported; see the head of this file."""

    def __init__(self, system: Defense) -> None:
        super().__init__()
        self.system = system

    def forward(self, pixels: Tensor) -> Tensor:
        return self.system.probabilities(pixels)


def export(model: Model, out: Path, form: Format, pixels: Iterable[Tensor], threads: int) -> Checked:
    """Writes a model as one file, and compares its answers with the model's.

    Args:
        model: on the CPU.
        out: the file, which is replaced.
        form: `onnx` needs the packages of the extra `onnx`.
        pixels: batches float [N, 3, side, side] to compare answers with.
        threads: for the comparison.

    Raises:
        UserError: the answers differ, the model computes something that a graph cannot hold, or a package is missing.
            No file is left then.
    """
    if form == "onnx":
        refuse_without_onnx()
    program = graph(model)
    with new_file(out) as partial:
        run = _onnx(program, model, partial, threads) if form == "onnx" else _pt2(program, model, partial)
        return compared(model, run, pixels, out.name)


def refuse_without_onnx() -> None:
    """Raises:
    UserError: a package that writes or runs ONNX is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{' and '.join(missing)} {verb} missing; type pip install -c constraints.txt -e '.[onnx]', or "
            "take --format pt2"
        )


def graph(model: Model) -> ExportedProgram:
    """The model as a graph for batches of any size from 1 on.

    Raises:
        UserError: it computes something that depends on values in a way that no graph can hold.
    """
    example = torch.zeros(2, 3, model.side, model.side)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(
                Probabilities(model.system).eval(), (example,), dynamic_shapes={INPUT: {0: Dim("n", min=1)}}
            )
    except Exception as error:  # noqa: BLE001 (torch has no class for it)
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"{model.system.title} computes something that cannot be written as a graph "
            f"({type(error).__name__}: {reason}); use it with refine.load"
        ) from None


def card(model: Model) -> dict[str, str]:
    """What a program that runs the file has to know, each value as JSON."""
    side, classes = model.side, list(model.classes)
    preparation = model.card.preparation or Preparation(resize=side, crop=side, keep_aspect=False)
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "classes": classes,
        "input": {"name": INPUT, "dtype": "float32", "shape": ["n", 3, side, side], "range": [0, 1], "channels": "RGB"},
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["n", len(classes)]},
        "preparation": preparation.model_dump(),
        "defense": model.system.title,
        "sha256": {name: sums.model_dump() for name, sums in model.sums.items()},
        "version": version("refine"),
    }
    return {f"{_PREFIX}{name}": json.dumps(value, ensure_ascii=False) for name, value in content.items()}


def _onnx(program: ExportedProgram, model: Model, path: Path, threads: int) -> Run:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = torch.onnx.export(
            program, dynamo=True, external_data=False, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
        content = _plain(made.model_proto)
    if content.ByteSize() >= _LARGEST:
        raise UserError(f"{model.card.architecture.name} is larger than the 2 GiB of an ONNX file; take --format pt2")
    onnx.helper.set_model_props(content, card(model))
    onnx.checker.check_model(content, full_check=True)
    path.write_bytes(content.SerializeToString(deterministic=True))
    return onnx_runtime(path, INPUT, threads)


def _plain(content: Any) -> Any:
    """An ONNX model without the notes of its making, which tell paths of this machine; its free dimension is `n`."""
    symbol = content.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    values = [*content.graph.input, *content.graph.output, *content.graph.value_info]
    for part in (content.graph, *content.graph.node, *values):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for dim in (dim for value in values for dim in value.type.tensor_type.shape.dim):
        if dim.dim_param == symbol:
            dim.dim_param = "n"
    return content


def _pt2(program: ExportedProgram, model: Model, path: Path) -> Run:
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={"refine.json": json.dumps(card(model), ensure_ascii=False)})
        path.write_bytes(buffer.getvalue())
        loaded: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return loaded
