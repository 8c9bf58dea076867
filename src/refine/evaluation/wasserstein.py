"""How far a defence moves what a classifier sees and says: Wasserstein-1 distances (REFINE's Theorem 1 is about one).

A diagnostic and never a certificate: a transform that permutes the images among each other has distance 0 and may
change every single answer. Each figure stands beside `null`, what two sets of benign images are apart by chance alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from refine.data.pixels import in_batches
from refine.defenses.label_map import remap
from refine.defenses.refine import Refine
from refine.models.device import Compute

DIGITS = 4


@dataclass(frozen=True)
class Seen:
    """What a classifier makes of images, each float and on the CPU.

    Attributes:
        penultimate: [n, d], in front of its last layer.
        softmax: [n, K], before any label map.
    """

    penultimate: Tensor
    softmax: Tensor


@dataclass(frozen=True)
class Both:
    """The same images as the bare classifier sees them, and behind the transform."""

    before: Seen
    after: Seen


@torch.inference_mode()
def look(defence: Refine, images: Tensor, batch_size: int, compute: Compute) -> Both:
    """What a defended classifier makes of images uint8 [n, 3, H, W], with and without its defence."""
    before, after = [], []
    for pixels in in_batches(images, batch_size, compute.device):
        before.append(_features(defence, defence.classifier.normalise(pixels)))
        after.append(_features(defence, defence.network_inputs(defence.transformed(pixels))))
    return Both(_seen(defence, torch.cat(before)), _seen(defence, torch.cat(after)))


def _features(defence: Refine, inputs: Tensor) -> Tensor:
    features: Tensor = defence.classifier.network.features(inputs)  # type: ignore[operator]
    return features.float()


def _seen(defence: Refine, features: Tensor) -> Seen:
    logits: Tensor = defence.classifier.network.head(features)  # type: ignore[operator]
    return Seen(features.cpu(), logits.softmax(dim=1).cpu())


def distance(one: Tensor, other: Tensor) -> float:
    """The exact Wasserstein-1 distance of two sets of as many points, float [n, d] each; ground cost Euclidean."""
    cost = torch.cdist(one.double(), other.double(), compute_mode="donot_use_mm_for_euclid_dist")
    rows, columns = linear_sum_assignment(cost.numpy())
    return float(cost[rows, columns].mean())


def distances(benign: Both, attacked: tuple[Both, Both] | None, permutation: Tensor) -> dict[str, dict[str, float]]:
    """All figures, by representation.

    `moved_benign`, `moved_triggered`: images before and after the transform, large under REFINE. `paired`: mean
    distance of a benign image from itself after it, which `moved_benign` cannot exceed. `trigger_before`,
    `trigger_after`: triggered images against the same ones without their trigger; large where the trigger works,
    small where it was removed. `utility` (softmax): what the bare and what the defended classifier says to benign
    images, small where accuracy is kept. `null`: the benign images against as many others.

    Args:
        benign: 2 n test images of all classes; the second half serves `null` alone, so that it has the bias of the
            others, which depends on n.
        attacked: n images without and with their trigger; None where nothing is triggered.
        permutation: int64 [K], of the label map.
    """
    return {name: _figures(name, benign, attacked, permutation) for name in ("penultimate", "softmax")}


def _figures(name: str, benign: Both, attacked: tuple[Both, Both] | None, permutation: Tensor) -> dict[str, float]:
    half = len(benign.before.softmax) // 2
    before, others = getattr(benign.before, name)[: 2 * half].split(half)
    after = getattr(benign.after, name)[:half]
    figures = {
        "moved_benign": distance(before, after),
        "paired": float((before.double() - after.double()).norm(dim=1).mean()),
        "null": distance(before, others),
    }
    if name == "softmax":
        figures["utility"] = distance(before, remap(after, permutation))
    if attacked is not None:
        clean, triggered = attacked
        figures["moved_triggered"] = distance(getattr(triggered.before, name), getattr(triggered.after, name))
        figures["trigger_before"] = distance(getattr(triggered.before, name), getattr(clean.before, name))
        figures["trigger_after"] = distance(getattr(triggered.after, name), getattr(clean.after, name))
    return {key: round(value, DIGITS) for key, value in figures.items()}
