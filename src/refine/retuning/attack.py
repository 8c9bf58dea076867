"""The retuning attack: a defended model is trained for a moment on a few images, hardly any of them poisoned.

A backdoor that a defense only hides comes back, one that it removed does not (Min et al., NeurIPS 2024, "Uncovering,
Explaining, and Mitigating the Superficial Safety of Backdoor Defense"). A clean model learns a little of the trigger
from the same images; what counts is how much more a defended one does. A model that no longer knows clean images
afterwards was destroyed and not attacked, so the success rate has to be read beside the benign accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from refine.core.errors import UserError
from refine.defending.protocol.defense import Defense, Retunes
from refine.defending.share import chosen
from refine.models.device import Compute, to_float32
from refine.retuning.params import RetuningParams
from refine.shards.reading.pixels import to_pixels
from refine.shards.reading.reader import Split

ALL = "all"
"""The variant that every defense has: everything in it is trained."""


@dataclass(frozen=True)
class Draw:
    """Images that an attacker has.

    Attributes:
        images: uint8 [N, 3, H, W], first the clean ones.
        labels: int64 [N], true ones, and for poisoned images those that the attacker gives.
        poisoned: how many of them are poisoned.
        seed: that they were drawn by; the training draws its batches by it.
    """

    images: Tensor
    labels: Tensor
    poisoned: int
    seed: int


def drawn(clean: Split, poisoned: Split, params: RetuningParams, seed: int) -> Draw:
    """Draws an attacker's images.

    Args:
        clean: training images.
        poisoned: training images, whose flag `poisoned` is true for those with trigger and the attacker's label.
        params: how many of each.
        seed: of the draw.

    Raises:
        UserError: no image is poisoned, or the share of the clean ones holds none.
    """
    own = poisoned.flags("poisoned").nonzero().flatten()
    if not len(own):
        raise UserError("no training image is poisoned, so that there is nothing to retune a model by")
    draws = Generator().manual_seed(seed)
    benign = chosen(len(clean.keys), params.clean_share, draws, "clean_share")
    own = own[torch.randperm(len(own), generator=draws)[: params.poisoned]]
    images = torch.cat([clean.images[benign], poisoned.images[own]])
    labels = torch.cat([clean.labels[benign], poisoned.labels[own]])
    return Draw(images, labels, len(own), seed)


def variants(defense: Defense) -> list[str]:
    """In which ways an attacker can retune a defense, `all` among them."""
    return [*_modules(defense)]


def retuned(defense: Defense, variant: str, draw: Draw, params: RetuningParams, compute: Compute) -> Defense:
    """A copy of a defended model in eval mode on its device, after an attacker trained it; itself is not changed.

    Args:
        defense: in eval mode.
        variant: one of `variants`.
        draw: what the attacker has.
        params: how the attacker trains.
        compute: device.

    Raises:
        UserError: the weights are no longer finite, or the defense passes no gradient on to them.
    """
    made = deepcopy(defense).to(compute.device).requires_grad_(False).eval()
    modules = _modules(made)[variant]
    trained = [parameter.requires_grad_() for module in modules for parameter in module.train().parameters()]
    optimizer = SGD(trained, lr=params.lr, momentum=params.momentum)
    torch.manual_seed(draw.seed)
    order = Generator().manual_seed(draw.seed)
    for _ in range(params.epochs):
        for rows in _batches(len(draw.labels), params.batch_size, order):
            pixels = to_pixels(draw.images[rows].to(compute.device)).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(to_float32(made(pixels)), draw.labels[rows].to(compute.device))
            if not loss.requires_grad:
                raise UserError(f"{defense.title} passes no gradient on, so that it cannot be retuned")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if not all(bool(tensor.isfinite().all()) for tensor in made.state_dict().values()):
        raise UserError(f"retuning {defense.title} left infinite weights")
    return made.requires_grad_(False).eval()


def _modules(defense: Defense) -> dict[str, list[nn.Module]]:
    return defense.retuned_modules() if isinstance(defense, Retunes) else {ALL: [defense]}


def _batches(count: int, size: int, order: Generator) -> Iterator[Tensor]:
    """Rows in random order. A lone image joins the batch before it, as batch normalization cannot take it."""
    rows = torch.randperm(count, generator=order)
    start = 0
    while start < count:
        stop = start + size if count - start - size > 1 else count
        yield rows[start:stop]
        start = stop
