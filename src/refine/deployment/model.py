"""A classifier, defended or not, as people use it:

import refine

model = refine.load("defended")
model.classify(["photo.jpg", "other.png"])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refine.core.errors import UserError
from refine.core.machine import Machine
from refine.defending import loading
from refine.defending.protocol.defense import Defense, NoDefense
from refine.deployment import folder as folders
from refine.deployment.folder import Sums
from refine.deployment.inputs import Picture, each, pixels_of
from refine.models import classifier as classifiers
from refine.models.classifier import ClassifierCard
from refine.models.device import compute

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of an image.

    Attributes:
        label: number of the most probable class.
        name: of that class.
        probability: of that class, 0 to 1.
        probabilities: of all classes, float32 [K].
        names: of all classes.
    """

    label: int
    name: str
    probability: float
    probabilities: NDArray[np.float32]
    names: tuple[str, ...]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, the first one first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.names[label], float(self.probabilities[label])) for label in order]

    def __repr__(self) -> str:
        return f"Prediction({self.name!r}, {self.probability:.4f})"


class Model:
    """A classifier, with a defense or without.

    Args:
        system: the defended classifier, in eval mode.
        card: of the classifier.
        device: to compute on.
        sums: of the folders that it was loaded from, by `classifier` and `defense`.
        bare: the classifier as it was given, where `system` has a defense.

    Attributes:
        classes: names, in the order of the labels.
        side: height and width in pixels of what the classifier takes; files and pictures are brought to it.
        undefended: the classifier without its defense; None where there is no defense.
    """

    def __init__(
        self, system: Defense, card: ClassifierCard, device: torch.device, sums: dict[str, Sums], bare: Defense | None
    ) -> None:
        self.system = system.to(device).requires_grad_(False)
        self.card = card
        self.classes = tuple(card.classes)
        self.side = card.input_side
        self.device = device
        self.sums = sums
        own = {folders.CLASSIFIER: sums[folders.CLASSIFIER]}
        self.undefended = None if bare is None else Model(bare, card, device, own, None)

    def classify(self, images: Picture | Sequence[Picture]) -> list[Prediction]:
        """Classifies images, 64 at a time, without gradients.

        Args:
            images: a path, a picture of Pillow, an array uint8 [H, W, 3] or [N, H, W, 3], a tensor [N, 3, H, W] of
                uint8 or of floats in [0, 1], or a list of these. Files and pictures are prepared as the classifier's
                card says; arrays and tensors must have its size.

        Returns:
            A prediction for each image, in their order.

        Raises:
            ValueError: pixels of another side, dtype or range.
            TypeError: something that is no image.
            UserError: a file cannot be read as an image.
        """
        return [prediction for pixels in self._batches(images) for prediction in self.predictions(pixels)]

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits float [N, K] of pixels float [N, 3, side, side] in [0, 1], with gradients to the pixels.

        Raises:
            ValueError: pixels of another side, dtype or range.
        """
        if not pixels.is_floating_point():
            raise ValueError(
                f"logits takes pixels float [N, 3, {self.side}, {self.side}] in [0, 1], not {pixels.dtype}"
            )
        logits: Tensor = self.system(pixels_of(self.card, pixels).to(self.device))
        return logits

    @torch.inference_mode()
    def predictions(self, pixels: Tensor) -> list[Prediction]:
        """Classifies pixels float [N, 3, side, side] in [0, 1], all at once."""
        probabilities = self.system.probabilities(pixels.to(self.device)).cpu()
        best = probabilities.max(dim=1)
        return [
            Prediction(label, self.classes[label], probability, row, self.classes)
            for label, probability, row in zip(
                best.indices.tolist(), best.values.tolist(), probabilities.numpy(), strict=True
            )
        ]

    def _batches(self, images: Picture | Sequence[Picture]) -> Iterator[Tensor]:
        """Pixels of at most so many images; files are read when their turn comes."""
        waiting: list[Tensor] = []
        for image in each(images):
            for pixels in torch.split(pixels_of(self.card, image), _BATCH):
                if waiting and sum(map(len, waiting)) + len(pixels) > _BATCH:
                    yield torch.cat(waiting)
                    waiting = []
                waiting.append(pixels)
        if waiting:
            yield torch.cat(waiting)


def load(
    folder: str | PathLike[str], defense: str | PathLike[str] | None = None, device: str | torch.device = "auto"
) -> Model:
    """Loads a model from a folder that may be untrusted.

    Args:
        folder: what `refine defend` wrote, or the folder of a classifier.
        defense: folder of a defense for that classifier, where it lies apart from it.
        device: `auto` (a GPU if there is one), `cpu`, or such as `cuda:1`.

    Raises:
        UserError: a folder is damaged, or its parts do not belong together.
    """
    place = Path(folder)
    classifier, apart = place, None if defense is None else Path(defense)
    if folders.is_defended(place):
        if apart:
            raise UserError(f"{place} is defended already; give {place / folders.CLASSIFIER} with another defense")
        folders.read(place)
        classifier, apart = place / folders.CLASSIFIER, place / folders.DEFENSE
    bare, card = classifiers.load(classifier)
    on = compute(Machine(device=str(device))).device
    sums = {folders.CLASSIFIER: folders.sums_of(classifier)}
    if apart is None:
        return Model(NoDefense(bare).eval(), card, on, sums, None)
    sums[folders.DEFENSE] = folders.sums_of(apart)
    return Model(loading.load(apart, classifier), card, on, sums, NoDefense(bare).eval())
