"""Target vote: where inputs go that change in what a classifier does not need (BTI-DBF, Xu et al., ICLR 2024).

First, a mask m over the D features finds those that the classifier's own answers y rest on:

    minimize over m:  CE(h(m g(x)), y) - CE(h((1 - m) g(x)), y),   m = tanh(theta) / 2 + 1/2

with the features g and the linear head h. Then a generator B changes the images so that the other features move and
these do not:

    minimize over B:  -|(1 - m) (g(B(x)) - g(x))|^2 + 0.01 |m (g(B(x)) - g(x))|^2

while the changes stay small: where B(x) is farther from x than `image_bound`, or the features that count move by more
than `feature_bound`, the loss is the distance of the images instead. A backdoor sits in features that clean images do
not need, so the changed images fall into its target. The score of a class is the share of the images of other classes
that fall into it.

Ours: features after pooling; y are the classifier's answers and not labels; distances of features are relative to the
variance of the features; the generator is three convolutions that also see the coordinates, added to the image, which
begins as a slight change and so needs no pretraining; the classifier stays in eval mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.core.bounds import BatchSize
from refine.core.params import PositiveNumber, Section, Weight
from refine.core.progress import progress
from refine.models.device import to_float32
from refine.proof.judging.inversion import rows
from refine.proof.judging.sign import Finding, Subject

TITLE = "Changed images fall into one class (target vote of BTI-DBF)"
MEANING = (
    "Images are changed slightly, so that they keep what the model's answers rest on and change in everything else "
    "that it sees in them. If many of them then fall into one and the same class, the model may react to something "
    "that clean images do not contain, such as a trigger. Models without a backdoor can have such a class too."
)
BENIGN_WEIGHT = 0.01

Count = Annotated[int, Field(ge=1, le=100_000)]


class Params(Section):
    """Attributes:
    images: most images that are used.
    least_images: with fewer, the sign abstains.
    mask_steps: of the search for the mask.
    mask_lr: its learning rate; published.
    steps: of the generator's training.
    batch_size: images in such a step.
    lr: learning rate of the generator.
    channels: of the generator.
    image_bound: largest mean squared change of normalized images; published.
    feature_bound: largest mean squared change of the features that count, relative to their variance.
    least_moved: the sign abstains if fewer images change their class, as a share.
    """

    images: Count = 300
    least_images: Count = 100
    mask_steps: Annotated[int, Field(ge=1, le=100_000)] = 300
    mask_lr: PositiveNumber = 0.05
    sparsity: Weight = 1.0
    steps: Annotated[int, Field(ge=1, le=100_000)] = 100
    batch_size: BatchSize = 32
    lr: PositiveNumber = 1e-2
    channels: Annotated[int, Field(ge=8, le=1024)] = 16
    image_bound: PositiveNumber = 0.3
    feature_bound: PositiveNumber = 1.0
    least_moved: Annotated[float, Field(ge=0, le=1)] = 0.2


class Alteration(nn.Module):
    """Adds to images what three convolutions make of them and of the coordinates of their pixels; at first little.

    Shapes:
        float [N, 3, H, W] in [0, 1] to the same.
    """

    def __init__(self, channels: int, side: int, largest: Tensor) -> None:
        super().__init__()
        self.register_buffer("largest", largest, persistent=False)
        self.same = nn.Parameter(0.01 * torch.randn(3, side, side))
        self.inner = nn.Sequential(
            nn.Conv2d(5, channels, 5, padding=2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
        )
        self.outlet = nn.Conv2d(channels, 3, 3, padding=1)
        with torch.no_grad():
            for tensor in self.outlet.parameters():
                tensor.mul_(0.1)  # not zero, where the distance of features has no gradient

    def forward(self, pixels: Tensor) -> Tensor:
        rows, columns = (torch.linspace(-1, 1, side, device=pixels.device) for side in pixels.shape[-2:])
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(pixels), -1, -1, -1)
        change: Tensor = self.outlet(self.inner(torch.cat([pixels, places], dim=1)))
        change = (pixels + self.same + change).clamp(0, 1) - pixels
        size = (change / self.largest).square().mean(dim=(1, 2, 3), keepdim=True)
        return pixels + change * size.clamp(min=1).rsqrt()


def look(subject: Subject, params: Params, seed: int) -> Finding:
    """See `proof.judging.sign`."""
    network = subject.classifier.network
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear):
        return Finding(weak="the network has no linear layer at its end whose inputs could be examined")
    if len(subject.images) < params.least_images:
        return Finding(
            weak=f"{len(subject.images)} images are fewer than the {params.least_images} of the setting least_images"
        )
    pixels, predicted = subject.drawn(params.images, seed)

    def features(batch: Tensor) -> Tensor:
        with subject.compute.autocast(subject.precision):
            normalized = subject.classifier.normalize(batch).contiguous(memory_format=torch.channels_last)
            return to_float32(network.features(normalized))  # type: ignore[operator]

    with torch.no_grad():
        clean = torch.cat([features(batch) for batch in pixels.split(params.batch_size)])
    mask = decoupled(clean, predicted, head, params, Generator().manual_seed(seed))
    alteration = _trained(subject, params, pixels, clean, mask, features, seed)
    with torch.no_grad():
        altered = torch.cat([features(alteration(batch)) for batch in pixels.split(params.batch_size)])
        after = to_float32(head(altered)).argmax(dim=1)
    return _vote(subject, params, predicted.cpu(), after.cpu(), mask)


def decoupled(features: Tensor, predicted: Tensor, head: nn.Linear, params: Params, generator: Generator) -> Tensor:
    """The mask over the features that the answers rest on, float32 [D] in (0, 1).

    Args:
        features: float32 [N, D].
        predicted: the classifier's answers, int64 [N].
        head: maps features to logits.
        params: steps and learning rate.
        generator: on the CPU.
    """
    theta = torch.randn(features.shape[1], generator=generator).to(features.device).requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=params.mask_lr)
    for _ in range(params.mask_steps):
        mask = theta.tanh() / 2 + 0.5
        kept, left = to_float32(head(mask * features)), to_float32(head((1 - mask) * features))
        optimizer.zero_grad()
        without = functional.cross_entropy(left, predicted).clamp(max=math.log(kept.shape[1]))
        (functional.cross_entropy(kept, predicted) - without + params.sparsity * mask.mean()).backward()
        optimizer.step()
    return (theta.tanh() / 2 + 0.5).detach()


def _trained(
    subject: Subject,
    params: Params,
    pixels: Tensor,
    clean: Tensor,
    mask: Tensor,
    features: Callable[[Tensor], Tensor],
    seed: int,
) -> Alteration:
    """The generator, trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        alteration = Alteration(params.channels, pixels.shape[-1], params.image_bound**0.5 * subject.classifier.std).to(
            pixels.device
        )
    optimizer = torch.optim.Adam(alteration.parameters(), lr=params.lr)
    variance = clean.var(dim=0).mean().clamp(min=1e-12)
    batches = rows(len(pixels), params.batch_size, Generator().manual_seed(seed))
    for _ in progress(range(params.steps), "vote", params.steps, "step"):
        some = next(batches).to(pixels.device)
        altered = alteration(pixels[some])
        moved = (features(altered) - clean[some]).square() / variance
        benign, other = _weighed(moved, mask), _weighed(moved, 1 - mask)
        optimizer.zero_grad()
        (BENIGN_WEIGHT * benign - other).backward()
        optimizer.step()
    return alteration


def _weighed(moved: Tensor, mask: Tensor) -> Tensor:
    """Mean of squared changes float [N, D] of features that a mask float [D] weighs."""
    return (mask.square() * moved).mean() / mask.square().mean().clamp(min=1e-6)


def _vote(subject: Subject, params: Params, before: Tensor, after: Tensor, mask: Tensor) -> Finding:
    count = len(subject.classes)
    outside = len(before) - before.bincount(minlength=count)
    arrived = after[after != before].bincount(minlength=count)
    shares = arrived / outside.clamp(min=1)
    moved = (after != before).double().mean().item()
    votes = shares.sort(descending=True).values
    return Finding(
        scores=dict(zip(subject.classes, shares.tolist(), strict=True)),
        weak=f"only {moved:.0%} of the images changed their class" if moved < params.least_moved else None,
        figures={
            "images": float(len(before)),
            "moved": moved,
            "margin": (votes[0] - votes[1]).item(),
            "mask_mean": mask.mean().item(),
        },
    )
