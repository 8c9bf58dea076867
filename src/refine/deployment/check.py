"""Whether an exported file answers as the model does that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.deployment.model import Model

Run = Callable[[Tensor], Tensor]
"""From pixels float32 [N, 3, side, side] to probabilities float32 [N, K]."""

EXACT = 1e-4
"""Largest difference of a probability that rounding in another order may make."""
_NOISE = 24


@dataclass(frozen=True)
class Checked:
    """How a file's answers compare with the model's.

    Attributes:
        images: compared.
        same: of them, with the same most probable class.
        difference: the largest one of a probability.
    """

    images: int
    same: int
    difference: float


def onnx_runtime(path: Path, name: str, threads: int) -> Run:
    """An ONNX file as a function, computed by onnxruntime on the CPU.

    Args:
        path: of the file.
        name: of its input.
        threads: for arithmetic.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(None, {name: pixels.contiguous().numpy()})[0])


def probe(side: int) -> Iterator[Tensor]:
    """Images that no file is needed for, float [N, 3, side, side]: noise of all brightnesses, black, gray and white."""
    noise = torch.rand(_NOISE, 3, side, side, generator=Generator().manual_seed(0))
    levels = torch.linspace(0, 1, _NOISE).view(-1, 1, 1, 1)
    flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, side, side)
    yield torch.cat([noise * levels, flat])


@torch.inference_mode()
def compared(model: Model, run: Run, batches: Iterable[Tensor], name: str) -> Checked:
    """Compares answers; the first image is asked for alone as well, as batches of one may be computed differently.

    Args:
        model: on the CPU.
        run: the file.
        batches: of pixels float [N, 3, side, side].
        name: of the file, for messages.

    Raises:
        UserError: the answers differ.
    """
    images = same = 0
    difference = 0.0
    for pixels in batches:
        expected = model.system.probabilities(pixels)
        parts = [pixels] if images else [pixels[:1], pixels]
        found = [run(part) for part in parts]
        for answers in found:
            difference = max(difference, float((answers - expected[: len(answers)]).abs().max()))
        images += len(pixels)
        same += int((found[-1].argmax(dim=1) == expected.argmax(dim=1)).sum())
    if same < images or not difference <= EXACT:
        raise UserError(
            f"{name} would answer otherwise than the model: the same class for {same:,} of {images:,} images, "
            f"probabilities differ by up to {difference:.2g}; no file was written"
        )
    return Checked(images, same, difference)
