"""What timm's own configuration says of the images that its networks take."""

from __future__ import annotations

from refine.architectures.timm.network import known
from refine.architectures.timm.params import Params
from refine.models.architecture import Published

_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")


def published(params: Params) -> Published | None:
    """See `importing.published`."""
    said = known(params).get_pretrained_cfg(params.model)
    if said is None:
        return None
    side = said.input_size[-1]
    interpolation = said.interpolation if said.interpolation in _INTERPOLATIONS else "bilinear"
    resize = int(side / (said.crop_pct or 1))
    return Published(side, resize, interpolation, said.crop_mode != "squash", tuple(said.mean), tuple(said.std))
