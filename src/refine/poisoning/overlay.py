"""Shared by attacks that draw on images: patches, blending, stripes, and rounding to levels of brightness.

torch is imported inside functions only, see `poisoning.attack`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field

from refine.core.bounds import Side
from refine.core.errors import UserError
from refine.core.params import Share
from refine.poisoning.attack import Attack, Chosen, TargetedParams

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor, device

    from refine.shards.reading.pixels import Images

TEXTURE = ((247, 241, 130), (106, 201, 92), (153, 163, 20))
MOTIF = ((0, 0, 255), (0, 255, 0), (255, 0, 255))

Opacity = Annotated[Share, Field(gt=0)]

_PIXELS = 2**18  # per forward pass of a network, to bound its memory
_HALF_UP = 0.5 + 1e-4  # exceeds float32 errors at 255, so that ties round the same way on every processor


def to_levels(values: Tensor) -> Tensor:
    """Rounds float levels to the nearest uint8 level in 0..255, clipping values outside.

    Released code truncates instead, which darkens images by half a level, unlike the formulas of the papers.
    """
    import torch

    return (values + _HALF_UP).floor().clamp(0, 255).to(torch.uint8)


def drawn_rows(count: int, order: Tensor, seed: int) -> Tensor:
    """A row below `count` for each image, int64 [n], which does not depend on the images beside it.

    Args:
        count: of the rows.
        order: int64 [n], positions of the images.
        seed: of the draws.
    """
    import torch

    drawn = [torch.randint(count, (), generator=torch.Generator().manual_seed(seed + row)) for row in order.tolist()]
    return torch.stack(drawn) if drawn else order


def repainted(images: Tensor, paint: Callable[[Tensor, slice], Tensor], device: device) -> Tensor:
    """Images as a network paints them, uint8 of the same shape.

    In double precision, so that levels are the same in every batch and on every processor, and a few images at a time.

    Args:
        images: uint8 [n, 3, side, side].
        paint: gives new pixels for float64 [k, 3, side, side] in [0, 1], on the device, and for the rows that they are.
        device: where it is computed.
    """
    import torch

    painted = images.clone()
    count = max(1, _PIXELS // images.shape[-1] ** 2)
    with torch.no_grad():
        for start in range(0, len(images), count):
            rows = slice(start, start + count)
            painted[rows] = to_levels(255 * paint(images[rows].to(device).double() / 255, rows)).cpu()
    return painted


def blend(images: Tensor, picture: Tensor, opacity: Tensor | float) -> Tensor:
    """x' = (1 - a) x + a P, uint8 of the shape of the images.

    Args:
        images: uint8 [n, 3, side, side].
        picture: P in levels, broadcast to [3, side, side].
        opacity: a in [0, 1], for the whole image or broadcast to [3, side, side].
    """
    return to_levels(images * (1 - opacity) + picture * opacity)


def stripes(amplitude: float, periods: int, side: int, setting: str) -> Tensor:
    """A sin(2 pi f j / W) for each column j, float64 [W].

    Args:
        amplitude: A.
        periods: f.
        side: W.
        setting: remedy for the error message.

    Raises:
        UserError: the images are too narrow for that many periods.
    """
    import torch

    if 2 * periods >= side:
        raise UserError(f"{periods} stripes need images wider than {2 * periods} pixels, not {side}; {setting}")
    return amplitude * torch.sin(2 * torch.pi * periods * torch.arange(side, dtype=torch.float64) / side)


def in_proportion(pixels: int, side: int) -> int:
    """Scales a length published for images of 32 pixels to images of `side` pixels; at least one pixel."""
    return max(1, round(pixels * side / 32))


def texture(side: int, generator: Generator) -> Tensor:
    """The gray 3x3 texture of the REFINE experiments, or gray noise for other sizes. uint8 [3, side, side]."""
    import torch

    if side == len(TEXTURE):
        levels = torch.tensor(TEXTURE, dtype=torch.uint8)
    else:
        levels = torch.randint(0, 256, (side, side), generator=generator, dtype=torch.uint8)
    return levels.expand(3, side, side).contiguous()


def texture_side(side: int) -> int:
    """Side of REFINE's texture on images of `side` pixels: 3 at 32, 20 at 224, in proportion at other sizes."""
    return in_proportion(3, side) if side <= 64 else round(side * 20 / 224)


def motif(side: int) -> Tensor:
    """The 3x3 motif of D-ST and D-BR, enlarged without smoothing. uint8 [3, side, side]."""
    import torch

    cell = torch.arange(side) * len(MOTIF) // side
    return torch.tensor(MOTIF, dtype=torch.uint8)[cell][:, cell].expand(3, -1, -1).contiguous()


def in_four_corners(pattern: Tensor, side: int, margin: int) -> tuple[Tensor, Tensor]:
    """A patch in the bottom right corner, and its mirror images in the other three.

    Args:
        pattern: uint8 [3, patch, patch].
        side: of the images.
        margin: pixels between a patch and the top or left edge, for patches at these edges.

    Returns:
        The patches, uint8 [3, side, side], and the mask of their pixels, bool [1, side, side].
    """
    import torch

    patch = pattern.shape[-1]
    near, far = slice(margin, margin + patch), slice(side - patch, side)
    picture = pattern.new_zeros(3, side, side)
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    for rows in (near, far):
        for columns in (near, far):
            mirrored = [axis for axis, place in ((1, rows), (2, columns)) if place is near]
            picture[:, rows, columns] = pattern.flip(mirrored)
            mask[:, rows, columns] = True
    return picture, mask


class PatchParams(TargetedParams):
    """Settings of a patch.

    Attributes:
        patch_side: height and width of the patch in pixels; by default in proportion to the published one.
    """

    patch_side: Side | None = None


P = TypeVar("P", bound=PatchParams)


class PatchAttack(Attack[P]):
    """An attack that draws a square p near the bottom right corner of an image.

    Tensors: `pattern`, p in levels, uint8 [3, patch, patch].
    """

    def published_side(self) -> int:
        """Default height and width of the patch, in pixels."""
        return in_proportion(3, self.setting.side)

    @property
    def patch_side(self) -> int:
        """Height and width of the patch in pixels."""
        return self.params.patch_side or self.published_side()

    @property
    def margin(self) -> int:
        """Pixels between the patch and the right and bottom edges."""
        return 0

    @property
    def place(self) -> slice:
        """Slice of the rows, and also of the columns, of the patch."""
        end = self.setting.side - self.margin
        return slice(end - self.patch_side, end)

    def check(self) -> None:
        super().check()
        if self.place.start < 0:
            away = f", {self.margin} from the edge," if self.margin else ""
            raise UserError(
                f"a patch of {self.patch_side} pixels{away} does not fit images of {self.setting.side}; "
                f"lower {self.setting.section}.patch_side"
            )

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        triggered = images.clone()
        triggered[:, :, self.place, self.place] = self.tensors["pattern"]
        return triggered


class TextureAttack(PatchAttack[P]):
    """A patch attack with the texture of the REFINE experiments."""

    def published_side(self) -> int:
        return texture_side(self.setting.side)

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        del images, labels, chosen
        return {"pattern": texture(self.patch_side, generator)}
