"""ShrinkPad (Li et al. 2021, "Backdoor Attack in the Physical World"): a smaller copy of each image at a random place.

A trigger that is small and fixed loses its place and its exact pixels; one that fills the image, or that was trained
with such changes, stays.

The official code (BackdoorBox) draws one place for a whole batch and, as its own runner calls it, shrinks twice. Here
each image has its own place, once, and the same image always the same one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from refine.core.bounds import PixelCount
from refine.core.errors import UserError
from refine.core.params import Section, Seed
from refine.defending.protocol.card import protected_classifier, read_defense_card, settings_of
from refine.defending.protocol.defense import Defense
from refine.defending.randomness import integers
from refine.models.classifier import Classifier
from refine.models.device import to_float32

NAME = "shrinkpad"
_SHARE_OF_SIDE = 8


class Params(Section):
    """Attributes:
    pad: pixels that height and width lose; null takes an eighth of them, which are the published 4 at 32 pixels.
    fill: what surrounds the smaller image: `black`, or `mean`, the color that normalization takes to zero.
    draws: places that are tried for each image and averaged; 1 is published.
    seed: of the places.
    """

    pad: PixelCount | None = None
    fill: Literal["black", "mean"] = "black"
    draws: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: Seed = 1


class Defended(Defense):
    """See `defending.protocol.defense.Defense`.

    Raises:
        UserError: nothing of the images would be left.
    """

    title = "ShrinkPad"
    regime = "none"

    def __init__(self, classifier: Classifier, params: Params, side: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.params = params
        self.pad = round(side / _SHARE_OF_SIDE) if params.pad is None else params.pad
        if self.pad >= side:
            raise UserError(
                f"defense_settings.{NAME}.pad {self.pad} leaves nothing of images of {side} pixels; lower it"
            )

    def forward(self, pixels: Tensor) -> Tensor:
        self.classifier.refuse_other(pixels)
        if self.params.draws == 1:
            logits: Tensor = self.classifier(self._placed(pixels, 0))
            return logits
        each = [to_float32(self.classifier(self._placed(pixels, draw))) for draw in range(self.params.draws)]
        return torch.stack([logits.softmax(dim=1) for logits in each]).mean(dim=0).log()

    def transformed(self, pixels: Tensor) -> Tensor:
        """The image of the first draw, pixels in [0, 1], same shape."""
        return self._placed(pixels, 0)

    def network_inputs(self, transformed: Tensor) -> Tensor:
        """See `Purifies`."""
        return self.classifier.normalize(transformed)

    def pictures(self, pixels: Tensor) -> Tensor:
        """See `Purifies`."""
        return self.transformed(pixels)

    def _placed(self, pixels: Tensor, draw: int) -> Tensor:
        """Each image smaller, at its place of this draw."""
        if not self.pad:
            return pixels
        side = pixels.shape[-1] - self.pad
        small = functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=False).clamp(0, 1)
        empty = torch.zeros_like(pixels) if self.params.fill == "black" else self.classifier.mean.expand_as(pixels)
        placed = empty.to(pixels.dtype).clone()
        places = integers(pixels, self.params.seed, self.pad + 1, 2 * (draw + 1))[:, -2:].tolist()
        for image, shrunk, (left, top) in zip(placed, small, places, strict=True):
            image[:, top : top + side, left : left + side] = shrunk
        return placed


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    card = read_defense_card(folder, NAME)
    classifier, classifier_card = protected_classifier(folder, card.classifier_sha256, classifier_folder)
    return Defended(classifier, settings_of(folder, card, Params), classifier_card.input_side).eval()
