"""Settings of the ResNet-18 for small images."""

from __future__ import annotations

from typing import Literal

from refine.core.bounds import Width
from refine.models.architecture import Architecture


class Params(Architecture):
    """Attributes:
    width: channels of its first stage; 64 in the paper.
    """

    name: Literal["resnet18"] = "resnet18"
    width: Width = 64
