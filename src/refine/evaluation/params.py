"""Parameters of the stage evaluate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from refine.core.bounds import BatchSize
from refine.core.params import Section, Share


class EvaluateParams(Section):
    """Attributes:
    batch_size: images per forward pass.
    gallery_images: columns of the picture grid.
    diagnostic_images: test images, benign ones and as many triggered ones, that the Wasserstein distances and the
        maps of features are made of, beside as many others for comparison; fewer where there are not so many.
    least_asr: attack success rate without defense below which the attack did not take; the run then says that it
        proves nothing about the defense.
    """

    batch_size: BatchSize = 256
    gallery_images: Annotated[int, Field(ge=1, le=64)] = 8
    diagnostic_images: Annotated[int, Field(ge=2, le=4000)] = 150
    least_asr: Share = 0.5
