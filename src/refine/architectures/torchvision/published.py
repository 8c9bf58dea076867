"""What torchvision's own configuration says of the images that its networks take."""

from __future__ import annotations

from torchvision.models import get_model_weights

from refine.architectures.torchvision.network import refuse_unknown
from refine.architectures.torchvision.params import VIT_SMALL, Params
from refine.models.architecture import Published

_HALF = (0.5, 0.5, 0.5)
_REMAPPED = ("googlenet", "inception_v3")
"""With torchvision's weights, these turn ImageNet's normalization into this one inside; ours leave it to the card."""


def published(params: Params) -> Published | None:
    """See `importing.published`."""
    refuse_unknown(params)
    if params.model == VIT_SMALL:
        return None
    said = get_model_weights(params.model).DEFAULT.transforms()
    mean, std = (_HALF, _HALF) if params.model in _REMAPPED else (tuple(said.mean), tuple(said.std))
    return Published(said.crop_size[0], said.resize_size[0], said.interpolation.value, True, mean, std)
