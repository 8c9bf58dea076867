"""How well an imported classifier knows labeled images: a wrong normalization or order of channels or classes shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from refine.core.errors import UserError
from refine.models.classifier import Classifier, ClassifierCard, Normalization
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


def labeled(folder: Path, card: ClassifierCard) -> tuple[list[Path], Tensor]:
    """The images in the class folders of a folder, and their labels, int64 [N].

    Class folders are called like the classes, or taken in the order of their names where there are as many.

    Raises:
        UserError: there are other folders than classes, or no images.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give one with a folder of images for each class")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    places = {name: label for label, name in enumerate(card.classes)}
    names = [path.name for path in folders]
    if not set(names) <= set(places):
        if len(folders) != len(card.classes):
            raise UserError(
                f"{folder} has {len(folders)} class folders, the model {len(card.classes)} classes, and their names "
                "differ; name the folders like the classes, or the classes like the folders by --classes"
            )
        places = {name: label for label, name in enumerate(names)}
    files, labels = [], []
    for path in folders:
        own = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
        files += own
        labels += [places[path.name]] * len(own)
    if not files:
        raise UserError(f"{folder} holds no images; give a folder with a folder of images for each class")
    return files, torch.tensor(labels)


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
