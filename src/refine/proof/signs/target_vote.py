"""Target vote: where inputs go that change in what a classifier does not need (BTI-DBF, Xu et al., ICLR 2024).

First, a mask m over the D features finds those that the classifier's own answers y rest on:

    minimize over m:  CE(h(m g(x)), y) - min(CE(h((1 - m) g(x)), y), ln K) + s mean(m),   m = tanh(theta) / 2 + 1/2

with the features g and the linear head h. Then a generator B changes the images so that the other features move and
these do not:

    minimize over B:  0.01 d(m) - d(1 - m),   d(w) = |w (g(B(x)) - g(x))|^2 / |w|^2

A backdoor sits in features that clean images do not need, so the changed images fall into its target. That is done in
several rounds with other random numbers; the score of a class is the mean share of the images of other classes that
fall into it. Without a backdoor the rounds often disagree.

Ours: features after pooling; y are the classifier's answers and not labels; the sparsity s and the bound ln K, without
which the mask keeps every feature; the masks' norms, without which a mask that keeps nearly all leaves nothing to
follow; the change of an image is scaled down to `image_bound`, where the published loss turns into the distance of the
images beyond a bound and so swings around it; the generator is three convolutions that also see the coordinates, and a
change that all images share, so that it needs no pretraining; the classifier stays in eval mode.
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
from refine.defending.inversion import rows
from refine.models.device import to_float32
from refine.proof.judging.sign import Finding, Subject

TITLE = "Changed images fall into one class (target vote of BTI-DBF)"
MEANING = (
    "Images are changed slightly, so that they keep what the model's answers rest on and change in everything else "
    "that it sees in them. If many of them then fall into one and the same class, the model may react to something "
    "that clean images do not contain, such as a trigger. Models without a backdoor can have such a class too."
)
BENIGN_WEIGHT = 0.01
_APART = 1000
"""Between the random numbers of two seeds; there are fewer rounds."""

Count = Annotated[int, Field(ge=1, le=100_000)]


class Params(Section):
    """Attributes:
    images: most images that are used.
    least_images: with fewer, the sign abstains.
    mask_steps: of the search for the mask.
    mask_lr: its learning rate.
    sparsity: s, how much a feature that the mask keeps costs.
    rounds: how often the vote is taken.
    steps: of the generator's training.
    batch_size: images in such a step.
    lr: learning rate of the generator.
    channels: of the generator.
    image_bound: largest mean squared change of a normalized image; published is 0.3.
    least_moved: the sign abstains if fewer images change their class, as a share.
    """

    images: Count = 300
    least_images: Count = 100
    mask_steps: Annotated[int, Field(ge=1, le=100_000)] = 300
    mask_lr: PositiveNumber = 0.05
    sparsity: Weight = 1.0
    rounds: Annotated[int, Field(ge=1, le=100)] = 3
    steps: Annotated[int, Field(ge=1, le=100_000)] = 40
    batch_size: BatchSize = 32
    lr: PositiveNumber = 1e-2
    channels: Annotated[int, Field(ge=8, le=1024)] = 16
    image_bound: PositiveNumber = 0.1
    least_moved: Annotated[float, Field(ge=0, le=1)] = 0.2


class Alteration(nn.Module):
    """Changes images by what three convolutions make of them and of the coordinates of their pixels; at first little.

    Args:
        channels: of the convolutions.
        side: of the images; their change also has a part that all of them share.
        largest: root of the largest mean squared change of an image, for each channel, float [1, 3, 1, 1].

    Shapes:
        float [N, 3, side, side] in [0, 1] to the same.
    """

    largest: Tensor

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

    def all_features(change: Callable[[Tensor], Tensor]) -> Tensor:
        starts = range(0, len(pixels), params.batch_size)
        with torch.no_grad():
            return torch.cat([features(change(pixels[start : start + params.batch_size])) for start in starts])

    clean = all_features(lambda batch: batch)
    votes, moved = [], []
    for own in progress([seed * _APART + number for number in range(params.rounds)], "vote", unit="round"):
        mask = decoupled(clean, predicted, head, params, Generator().manual_seed(own))
        alteration = _trained(subject, params, pixels, clean, mask, features, own)
        after = to_float32(head(all_features(alteration))).argmax(dim=1)
        votes.append(vote(predicted.cpu(), after.cpu(), len(subject.classes)))
        moved.append((after != predicted).double().mean().item())
    mean = torch.stack(votes).mean(dim=0)
    best = mean.sort(descending=True).values
    share = sum(moved) / len(moved)
    return Finding(
        scores=dict(zip(subject.classes, mean.tolist(), strict=True)),
        weak=f"only {share:.0%} of the images changed their class" if share < params.least_moved else None,
        figures={
            "images": float(len(pixels)),
            "moved": share,
            "margin": (best[0] - best[1]).item(),
            "rounds_agreeing": float(sum(int(each.argmax() == mean.argmax()) for each in votes)),
        },
    )


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
        (functional.cross_entropy(kept, predicted) - without + params.sparsity * mask.mean()).backward()  # type: ignore[no-untyped-call]
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
    for _ in range(params.steps):
        some = next(batches).to(pixels.device)
        moved = (features(alteration(pixels[some])) - clean[some]).square() / variance
        optimizer.zero_grad()
        loss = BENIGN_WEIGHT * _weighed(moved, mask) - _weighed(moved, 1 - mask)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return alteration


def _weighed(moved: Tensor, mask: Tensor) -> Tensor:
    """Mean of squared changes float [N, D] of features that a mask float [D] weighs."""
    return (mask.square() * moved).mean() / mask.square().mean().clamp(min=1e-6)


def vote(before: Tensor, after: Tensor, classes: int) -> Tensor:
    """For each class, the share of the images of other classes that fall into it, float64 [classes].

    Args:
        before: answers to the images, int64 [N].
        after: answers to the changed images, int64 [N].
        classes: K.
    """
    outside = len(before) - before.bincount(minlength=classes)
    arrived = after[after != before].bincount(minlength=classes)
    return arrived.double() / outside.clamp(min=1)
