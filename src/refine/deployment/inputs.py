"""What people give a classifier, as pixels: files, pictures of Pillow, arrays and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from refine.core.progress import progress
from refine.models.classifier import ClassifierCard
from refine.shards.format.foreign import Pixels
from refine.shards.format.manifest import Manifest
from refine.shards.format.preparation import prepared
from refine.shards.reading.pixels import to_pixels
from refine.shards.reading.reader import Split

Picture = str | Path | Image.Image | NDArray[np.uint8] | Tensor
"""A file, a picture of Pillow, or pixels of the classifier's size: an array uint8 [side, side, 3] or [N, side, side,
3], a tensor uint8 or float in [0, 1], [3, side, side] or [N, 3, side, side]."""

_ROUNDING = 1e-3


def each(images: Picture | Sequence[Picture]) -> Iterator[Picture]:
    """The items of a list or the like, or the one thing that is given instead.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(images, str | Path | Image.Image | np.ndarray | Tensor):
        yield images
    elif isinstance(images, Iterable):
        yield from images
    else:
        raise TypeError(_no_image(images))


def read_files(card: ClassifierCard, files: Sequence[Path]) -> Tensor:
    """Reads image files as a classifier takes them, uint8 [N, 3, side, side], RGB, with a progress bar.

    Raises:
        UserError: one cannot be read as an image.
    """
    side = card.input_side
    images = torch.empty((len(files), 3, side, side), dtype=torch.uint8)
    for place, file in enumerate(progress(files, "read images", len(files), "image")):
        images[place] = torch.from_numpy(np.array(card.read_image(file))).permute(2, 0, 1)
    return images


def unlabeled(images: Tensor, card: ClassifierCard) -> Split:
    """Images uint8 [N, 3, side, side] as a split without labels."""
    manifest = Manifest(
        source="photos",
        classes=[],
        side=card.input_side,
        mean=card.normalization.mean,
        std=card.normalization.std,
        samples_per_shard=1,
        labeled=False,
        counts=[],
        shards=[],
    )
    count = len(images)
    return Split(images, torch.zeros(count, dtype=torch.int64), torch.arange(count), [{}] * count, manifest)


def pixels_of(card: ClassifierCard, image: Picture) -> Tensor:
    """Pixels float [N, 3, side, side] in [0, 1], RGB, with N = 1 for a single image.

    Args:
        card: of the classifier, which says how files and pictures are prepared.
        image: pixels are taken as they are, and so must have the classifier's size.

    Raises:
        TypeError: it is something else.
        ValueError: pixels of another side, dtype or range, or with their axes in another order.
        UserError: a file cannot be read as an image.
    """
    if isinstance(image, str | Path):
        return _of_levels(card.read_image(Path(image)))
    if isinstance(image, Image.Image):
        return _of_levels(_prepared(card, image))
    if isinstance(image, np.ndarray):
        return _of_levels(_checked(card.input_side, image))
    if isinstance(image, Tensor):
        return _of_tensor(card.input_side, image)
    raise TypeError(_no_image(image))


def _no_image(image: object) -> str:
    return f"give paths, pictures of Pillow, arrays or tensors, not {type(image).__name__}"


def _prepared(card: ClassifierCard, image: Image.Image) -> Pixels:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"a picture of mode {image.mode} has more than 8 bits per channel; convert it to RGB first")
    upright = ImageOps.exif_transpose(image)
    if card.preparation:
        return prepared(upright, card.preparation)
    side = card.input_side
    return np.asarray(upright.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def _checked(side: int, array: NDArray[np.uint8]) -> Pixels:
    wanted = f"an array has to be uint8 [{side}, {side}, 3] or [N, {side}, {side}, 3], RGB"
    found = f"not {array.dtype} {list(array.shape)}"
    if array.dtype != np.uint8:
        raise ValueError(f"{wanted}, {found}; a tensor may be float in [0, 1], with its channels first")
    if array.ndim not in (3, 4) or array.shape[-3:] != (side, side, 3):
        raise ValueError(f"{wanted}, {found}; give PIL.Image.fromarray(array) to have an image resized")
    return array


def _of_levels(array: Pixels) -> Tensor:
    """From uint8 [H, W, 3] or [N, H, W, 3]."""
    levels = torch.from_numpy(np.array(array[None] if array.ndim == 3 else array))
    return to_pixels(levels.permute(0, 3, 1, 2))


def _of_tensor(side: int, tensor: Tensor) -> Tensor:
    """From [3, side, side] or [N, 3, side, side], uint8 or float in [0, 1]."""
    wanted = f"a tensor has to be float in [0, 1] or uint8, [N, 3, {side}, {side}], RGB"
    found = f"not {tensor.dtype} {list(tensor.shape)}"
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ValueError(f"{wanted}, {found}")
    if tensor.ndim not in (3, 4) or tensor.shape[-3:] != (3, side, side):
        last = tensor.ndim in (3, 4) and tensor.shape[-1] == 3
        raise ValueError(f"{wanted}, {found}" + ("; move its channels to the front with movedim(-1, -3)" * last))
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.dtype == torch.uint8:
        return to_pixels(batch)
    if batch.numel():
        least, most = (float(value) for value in batch.detach().aminmax())
        if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):  # also true for NaN
            remedy = "; divide levels of 0 to 255 by 255, or give them as uint8" if most > 1 and least >= 0 else ""
            raise ValueError(f"{wanted}, but its values are from {least:g} to {most:g}{remedy}")
    return batch.float()
