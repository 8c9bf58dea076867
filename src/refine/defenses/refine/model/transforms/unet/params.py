"""Settings of the published transform."""

from __future__ import annotations

from typing import Literal

from refine.core.bounds import UNetWidth
from refine.defenses.refine.model.transform_params import TransformParams


class Params(TransformParams):
    """Attributes:
    first_channels: of the first level; 64 for CIFAR-10 and 32 for 224 pixels in the paper.
    """

    name: Literal["unet"] = "unet"
    first_channels: UNetWidth = 64
