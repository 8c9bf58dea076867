"""How well an imported classifier knows labeled images: a wrong normalization or order of channels or classes shows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from refine.models.classifier import Classifier, Normalization
from refine.shards.reading.pixels import in_batches

_BATCH = 64
_MUCH = 0.1
"""By how much another reading of the images has to be better before it is told."""
NORMALIZATIONS = {
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 (ImageNet)": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "--mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616 (CIFAR-10)": (
        [0.4914, 0.4822, 0.4465],
        [0.2470, 0.2435, 0.2616],
    ),
    "--mean 0.5,0.5,0.5 --std 0.5,0.5,0.5": ([0.5] * 3, [0.5] * 3),
    "--mean 0,0,0 --std 1,1,1 (no normalization)": ([0.0] * 3, [1.0] * 3),
    "--mean 0,0,0 --std 0.00392,0.00392,0.00392 (values up to 255)": ([0.0] * 3, [0.00392] * 3),
}
"""That are common, by the options that choose them."""


def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of images whose label is the classifier's answer."""
    return float((_answers(classifier, lambda pixels: pixels, images) == labels).float().mean())


def hints(classifier: Classifier, images: Tensor, labels: Tensor, classes: int) -> list[str]:
    """What would make the classifier right more often by a tenth or more, each as a sentence, the best first.

    Args:
        classifier: frozen.
        images: uint8 [N, 3, side, side].
        labels: int64 [N].
        classes: K.
    """
    answers = _answers(classifier, lambda pixels: pixels, images)
    own = float((answers == labels).float().mean())
    tried: dict[str, float] = {}
    for options, (mean, std) in NORMALIZATIONS.items():
        other = Classifier(classifier.network, Normalization(mean=mean, std=std)).to(classifier.mean.device).eval()
        tried[f"with {options}"] = accuracy(other, images, labels)
    flipped = _answers(classifier, lambda pixels: pixels.flip(1), images)
    tried["with --bgr (channels in the order blue, green, red)"] = float((flipped == labels).float().mean())
    together = torch.zeros(classes, classes).index_put_((labels, answers), torch.ones(len(labels)), accumulate=True)
    rows, columns = linear_sum_assignment(-together.numpy())
    right = float(together[rows, columns].sum() / len(labels))
    tried["with its classes in another order, by --classes (or other folders)"] = right
    better = sorted(((share, way) for way, share in tried.items() if share >= own + _MUCH), reverse=True)
    return [f"{way} it would be {share:.1%}" for share, way in better]


@torch.inference_mode()
def _answers(classifier: Classifier, changed: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    device = classifier.mean.device
    batches = in_batches(images, _BATCH, device)
    return torch.cat([classifier(changed(pixels)).argmax(dim=1).cpu() for pixels in batches])
