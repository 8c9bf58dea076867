"""ONNX files as layers with weights, in the order in which they compute.

The file may come from anybody. It is parsed as data, and tensors that lie in other files are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.outside import first_line

REMEDY = "ask its maker for the weights, written by `torch.save(model.state_dict(), 'weights.pth')` or as safetensors"
Kind = Literal["convolution", "linear", "normalization"]

_LARGEST = 1 << 31
_LONGEST = 200


@dataclass(frozen=True)
class Layer:
    """A layer of the file.

    Attributes:
        kind: of layer.
        weight: of a convolution [out, in, h, w], of a linear layer [out, in], of a normalization its scale [C].
        bias: [out]; zero where the file has none.
        mean: of a normalization, [C].
        variance: of a normalization, [C], with what is added to it.
    """

    kind: Kind
    weight: Tensor
    bias: Tensor
    mean: Tensor | None = None
    variance: Tensor | None = None

    def after(self, other: Layer) -> Layer:
        """A convolution `other` with this normalization folded into it."""
        if self.mean is None or self.variance is None:
            raise ValueError("only a normalization can be folded")
        scale = self.weight / self.variance.sqrt()
        shape = (-1, *[1] * (other.weight.dim() - 1))
        return replace(
            other, weight=other.weight * scale.view(shape), bias=(other.bias - self.mean) * scale + self.bias
        )


@dataclass(frozen=True)
class OnnxFile:
    """Attributes:
    path: of the file.
    layers: with weights, the last of which gives the classes.
    probabilities: whether it ends in a softmax.
    """

    path: Path
    layers: list[Layer]
    probabilities: bool


def read(path: Path) -> OnnxFile:
    """The layers of an ONNX file.

    Raises:
        UserError: it is missing or damaged, packages are missing, or it has weights in layers of other kinds.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; give a file of weights")
    if path.stat().st_size > _LARGEST:
        raise UserError(f"{path} is larger than {_LARGEST >> 30} GiB; {REMEDY}")
    try:
        import onnx
        import onnxruntime  # noqa: F401 (needed later)
        import onnxscript.optimizer
    except ModuleNotFoundError:
        told = f"{path} is an ONNX file, for which packages are missing; pip install -c constraints.txt -e '.[onnx]'"
        raise UserError(told) from None
    try:
        model = onnx.load(path, load_external_data=False)
        apart = any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(model))
        graph = None if apart else onnxscript.optimizer.optimize(model).graph
        layers = _layers(graph, _constants(graph), path) if graph is not None else []
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 (a damaged file can fail anywhere in there)
        reason = first_line(error)
        raise UserError(f"{path} cannot be read as an ONNX file ({reason}); copy it again, or {REMEDY}") from None
    if graph is None:
        raise UserError(f"{path} keeps its weights in another file; have it exported as one file, or {REMEDY}")
    if not layers or layers[-1].kind != "linear":
        raise UserError(f"{path} does not end in a linear layer, so that its classes cannot be told; {REMEDY}")
    return OnnxFile(path, layers, graph.node[-1].op_type == "Softmax")


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors within a message of the format, however deep."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from _tensors(part)


def _constants(graph: Any) -> dict[str, Tensor]:
    from onnx.numpy_helper import to_array

    return {tensor.name: torch.from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}


def _layers(graph: Any, constants: Mapping[str, Tensor], path: Path) -> list[Layer]:
    """The layers with weights, in the order of the graph, batch normalization folded where it can be."""
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    by_output: dict[str, int] = {}
    layers: list[Layer] = []
    for node in graph.node:
        known = [constants.get(name) for name in node.input]
        if not any(tensor is not None and tensor.is_floating_point() and tensor.numel() > 1 for tensor in known):
            continue
        layer = _layer(node, known)
        if layer is None:
            before = by_output.get(node.input[0])
            if (
                node.op_type == "Add"
                and before is not None
                and layers[before].kind == "linear"
                and known[1] is not None
            ):
                layers[before] = replace(layers[before], bias=known[1].float().flatten())
                by_output[node.output[0]] = before
                continue
            raise UserError(
                f"{path} has weights in a layer of the kind {node.op_type[:_LONGEST]}, which is not read; {REMEDY}"
            )
        before = by_output.get(node.input[0])
        folds = layer.kind == "normalization" and before is not None and readers[node.input[0]] == 1
        if folds and before is not None and layers[before].kind == "convolution":
            layers[before] = layer.after(layers[before])
        else:
            layers.append(layer)
            by_output[node.output[0]] = len(layers) - 1
    return layers


def _layer(node: Any, known: list[Tensor | None]) -> Layer | None:
    """A node as a layer; None if it is of another kind."""
    attributes = {each.name: each.f if each.type == 1 else each.i for each in node.attribute if each.type in (1, 2)}
    weight = known[1] if len(known) > 1 else None
    if weight is None:
        return None
    if node.op_type == "Conv":
        bias = known[2] if len(known) > 2 else None
        return Layer("convolution", weight.float(), _or_zero(bias, weight.shape[0]))
    if node.op_type in ("Gemm", "MatMul") and weight.dim() == 2:
        own = weight if attributes.get("transB", 0) else weight.T
        bias = known[2] if len(known) > 2 else None
        plain = attributes.get("alpha", 1.0) == 1 and attributes.get("beta", 1.0) == 1
        return Layer("linear", own.float().contiguous(), _or_zero(bias, own.shape[0])) if plain else None
    if node.op_type == "BatchNormalization" and all(tensor is not None for tensor in known[1:5]):
        scale, shift, mean, variance = (tensor.float() for tensor in known[1:5] if tensor is not None)
        return Layer("normalization", scale, shift, mean, variance + attributes.get("epsilon", 1e-5))
    return None


def _or_zero(bias: Tensor | None, size: int) -> Tensor:
    return torch.zeros(size) if bias is None else bias.float().flatten()
