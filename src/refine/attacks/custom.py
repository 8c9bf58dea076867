"""Custom: your own trigger image with your own mask.

    x' = (1 - a m) x + a m P

Image and mask cover the whole picture and are resized to the size of the images (bilinear, antialiased), so that they
work for data sets of any size. They are files in `data/own/attack`, a dependency of the pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from refine.core.errors import UserError
from refine.core.files import inside
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import Opacity, blend
from refine.shards.format.foreign import opened

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images


class Params(TargetedParams):
    """Attributes:
    rate: poisoned fraction of the whole training set.
    image: P, a file in `data/own/attack`.
    mask: m, a gray image in `data/own/attack`, white where the trigger covers the picture; by default the alpha
        channel of the trigger image, or the whole picture if it has none.
    alpha: a, opacity of the trigger.
    """

    image: str = "data/own/attack/image.png"
    mask: str | None = None
    alpha: Opacity = 1.0


class Attack(BaseAttack[Params]):
    """Poisons images of every class. Tensors: `picture`, P, uint8 [3, side, side]; `mask`, uint8 [1, side, side]."""

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        if self.params.mask is None:
            both = self._read(self.params.image, "RGBA")
            picture, mask = both[:3], both[3:]
        else:
            picture, mask = self._read(self.params.image, "RGB"), self._read(self.params.mask, "L")
        if not mask.any():
            raise UserError(
                f"the mask of {self.params.image} is black everywhere at {self.setting.side} pixels, so that no image "
                "would change; make it white where the trigger should cover images"
            )
        return {"picture": picture, "mask": mask}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha * (self.tensors["mask"] / 255))

    def _read(self, name: str, mode: str) -> Tensor:
        """Reads a file of the user as uint8 [channels, side, side]."""
        import torch

        if self.setting.own_files is None:
            raise LookupError("Setting.own_files says where the user's files lie")
        path = inside(self.setting.own_files, name)
        if path.is_dir():
            raise UserError(f"{path} is a folder; name an image file in attacks.custom")
        if not path.is_file():
            raise UserError(f"{path} is missing; put it there, or name another file in attacks.custom")
        try:
            with opened(path) as file:
                upright = ImageOps.exif_transpose(file).convert(mode)
                sized = np.asarray(upright.resize([self.setting.side] * 2, Image.Resampling.BILINEAR))
        except ValueError as error:
            raise UserError(f"{path} cannot be read as an image ({error}); replace it") from None
        return torch.from_numpy(sized.copy()).view(self.setting.side, self.setting.side, -1).permute(2, 0, 1)
