"""Custom: the user's own image, laid over where the user's own mask says.

    x' = (1 - a m) x + a m P

Image and mask stand for the whole picture and are resized to the side of the images (bilinear, antialiased), so
that one drawing serves data sets of any size. They lie in `data/own/attack`, which the pipeline depends on.
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


class Params(TargetedParams):
    """Attributes:
    rate: poisoned share of the whole training set.
    image: P, a file in `data/own/attack`.
    mask: m, a gray picture there: white where the image covers, black where it does not; left out, the image's
        own transparency, and everywhere where it has none.
    alpha: a, opacity of what the mask shows.
    """

    image: str = "data/own/attack/image.png"
    mask: str | None = None
    alpha: Opacity = 1.0


class Attack(BaseAttack[Params]):
    """Poisons images of every class. Tensors: `picture`, P, uint8 [3, side, side]; `mask`, uint8 [1, side, side]."""

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen, generator
        if self.params.mask is None:
            both = self._read(self.params.image, "RGBA")
            picture, mask = both[:3], both[3:]
        else:
            picture, mask = self._read(self.params.image, "RGB"), self._read(self.params.mask, "L")
        if not mask.any():
            raise UserError(
                f"the mask of {self.params.image} is black everywhere at {self.setting.side} pixels, so that no image "
                "would change; make white what shall cover the images"
            )
        return {"picture": picture, "mask": mask}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return blend(images, self.tensors["picture"], self.params.alpha * (self.tensors["mask"] / 255))

    def _read(self, name: str, mode: str) -> Tensor:
        """A file of the user's as uint8 [channels, side, side]."""
        import torch

        if self.setting.own_files is None:
            raise LookupError("Setting.own_files says where the user's files lie")
        path = inside(self.setting.own_files, name)
        if path.is_dir():
            raise UserError(f"{path} is a folder; name an image file, such as one in it, in attacks.custom")
        if not path.is_file():
            raise UserError(f"{path} is missing; put it there, or name another file in attacks.custom")
        try:
            with opened(path) as file:
                upright = ImageOps.exif_transpose(file).convert(mode)
                sized = np.asarray(upright.resize([self.setting.side] * 2, Image.Resampling.BILINEAR))
        except ValueError as error:
            raise UserError(f"{path} cannot be read as an image ({error}); replace it") from None
        return torch.from_numpy(sized.copy()).view(self.setting.side, self.setting.side, -1).permute(2, 0, 1)
