"""Training of encoder and decoder, on clean images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.models.device import Compute, to_float32
from refine.poisoning.steganography.networks import Pair
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.compilation import compiled
from refine.training.loop import Epochs, Run, Step, Weights, batches_of
from refine.training.recipe import Recipe
from refine.training.training_set import Resident

_WINDOW = 5
_FLAT = 0.05
"""c, added to the local contrast, which bounds the cost of changes in flat regions."""


@dataclass
class HidingTask:
    """Cross-entropy of the decoded message plus the cost of the traces; see `training.loop.Task`."""

    module: Pair
    batches: Epochs
    bits: int
    hiding: float
    variety: float
    recipe: Recipe
    compute: Compute
    precision: str
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = Generator(self.compute.device)
        self._forward = compiled(self.module, self.recipe)
        self._ramp = 0.0

    def step(self, batch: Batch) -> Step:
        pixels = augment(batch.pixels, self.recipe.augment, self.generator)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        messages = torch.randint(0, 2, (len(batch), self.bits), generator=self.generator, device=pixels.device).float()
        messages[1::2] = messages[: len(batch) // 2 * 2 : 2]  # neighbors share a message, to compare their traces
        with self.compute.autocast(self.precision):
            marked, logits = self._forward(pixels, messages)
        logits = to_float32(logits)
        read = functional.binary_cross_entropy_with_logits(logits, messages)
        seen = visibility(pixels, to_float32(marked))
        right = ((logits > 0) == (messages > 0)).float().mean()
        alike = likeness(to_float32(marked) - pixels)
        loss = read + self._ramp * (self.hiding * seen + self.variety * alike)
        return Step(loss, {"message": read, "visibility": seen, "likeness": alike, "bits_read": right})

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Raises the cost of traces during the first half; otherwise they vanish before they can be decoded."""
        del weights
        self._ramp = min(1.0, 2 * epoch / self.recipe.epochs)


def visibility(pixels: Tensor, marked: Tensor) -> Tensor:
    """h, the mean squared change relative to the local contrast, a scalar; both arguments are float [N, 3, H, W]."""
    gray = pixels.mean(dim=1, keepdim=True)
    mean = functional.avg_pool2d(gray, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)
    square = functional.avg_pool2d(gray**2, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)
    contrast = (square - mean**2).clamp(min=0).sqrt()
    return ((marked - pixels) / (_FLAT + contrast)).square().mean()


def likeness(traces: Tensor) -> Tensor:
    """u, the mean cosine similarity of the traces of neighbors, a scalar; negative values count as 0.

    Args:
        traces: float [N, 3, H, W]; images 2 i and 2 i + 1 share a message.
    """
    pairs = traces[: len(traces) // 2 * 2].flatten(1)
    return functional.cosine_similarity(pairs[::2], pairs[1::2]).clamp(min=0).sum() / max(1, len(traces) // 2)


def trained_pair(
    images: Tensor,
    bits: int,
    width: int,
    strength: float,
    weights: tuple[float, float],
    recipe: Recipe,
    generator: Generator,
    compute: Compute,
) -> Pair:
    """Trains encoder and decoder; returns them in eval mode on the CPU.

    Args:
        images: uint8 [N, 3, side, side].
        bits: length of the messages.
        width: channels of the first layers.
        strength: largest change of a value, for pixels in [0, 1].
        weights: of visibility and likeness in the loss.
        recipe: of the training.
        generator: on the CPU.
        compute: device and threads.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    torch.manual_seed(seed)
    pair = Pair(bits, width, strength).to(compute.device).to(memory_format=torch.channels_last)
    precision = compute.precision(recipe.precision)
    batches = batches_of(Resident(images, (), compute.device), recipe, compute)
    task = HidingTask(pair, batches, bits, *weights, recipe, compute, precision)
    Run(task, recipe, "the attack's encoder", seed, compute, None).train()
    return pair.cpu()
