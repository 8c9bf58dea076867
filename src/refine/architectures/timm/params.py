"""Settings of the networks of timm."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from refine.models.architecture import Architecture


class Params(Architecture):
    """Attributes:
    model: what timm calls it, such as `resnet26d` or `vit_tiny_patch16_224`, without the name of its weights.
    """

    name: Literal["timm"] = "timm"
    model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
