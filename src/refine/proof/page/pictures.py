"""Pictures inside a page, encoded anew from their pixels: nothing of a file but these gets there."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

from PIL import Image
from torch import Tensor

_LARGE = 64
"""Side in pixels from which on a picture is a photograph, compressed as such and enlarged smoothly."""
_QUALITY = 85


def address_of(image: Tensor) -> str:
    """A `data:` address of an image uint8 [3, H, W]."""
    picture, buffer = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()), BytesIO()
    kind = "jpeg" if is_photograph(image.shape[-1]) else "png"
    picture.save(buffer, kind, **({"quality": _QUALITY} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode('ascii')}"


def is_photograph(side: int) -> bool:
    """Whether an image of this side in pixels is large enough to be enlarged smoothly."""
    return side >= _LARGE
