"""How images of any size become the squares of a data set: settings that data sources share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from refine.core.bounds import LARGEST_SIDE
from refine.core.params import Section
from refine.shards.format import foreign, preparation
from refine.shards.format.foreign import Pixels
from refine.shards.format.preparation import Interpolation, Preparation

Fit = Literal["squash", "crop"]
FittedSide = Annotated[int, Field(ge=16, le=LARGEST_SIDE)]


class Fitted(Section):
    """Attributes:
    side: height and width in pixels of every image of the data set.
    fit: `squash` resizes to the side without keeping the aspect ratio; `crop` resizes the shorter side, keeping it, and
        takes the square in the middle.
    resize: for `crop`, length in pixels of the shorter side before; by default, the side. With 256 and a side of 224,
        images are what most classifiers of ImageNet take.
    interpolation: of the resizing, which is antialiased (except `nearest`).
    """

    side: FittedSide = 64
    fit: Fit = "squash"
    resize: Annotated[int, Field(ge=16, le=2 * LARGEST_SIDE)] | None = None
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Fitted:
        if self.resize is not None and self.fit != "crop":
            raise ValueError("resize needs `fit: crop`")
        if self.resize is not None and self.resize < self.side:
            raise ValueError(f"resize is {self.resize}, less than the side of {self.side} that is cropped from it")
        return self

    @property
    def preparation(self) -> Preparation:
        """These settings as a classifier's card has them."""
        keep = self.fit == "crop"
        resize = self.resize or self.side
        return Preparation(resize=resize, crop=self.side, interpolation=self.interpolation, keep_aspect=keep)

    def read(self, path: Path, content: bytes | None = None) -> Pixels:
        """Reads an image file as RGB, uint8 [side, side, 3].

        Args:
            path: of the file.
            content: of the file, if it lies in an archive; the path is then only its name.

        Raises:
            UserError: the file cannot be read as an image.
        """
        if self.fit == "squash" and self.interpolation == "bilinear":
            return foreign.read(path, self.side, content)
        return preparation.read(path, self.preparation, content)
