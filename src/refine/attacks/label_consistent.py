"""Label-consistent: perturbed images of the target class with the patch of BadNets (Turner et al. 2019).

    training:  x' = patch(x + d),  |d| <= 8 / 255 by 100 steps of gradient ascent against a benign classifier
    test:      x' = patch(x);  training images keep their labels

d is computed for the poisoned images only, against a classifier whose input is normalized as in its training; the
released REFINE code omits this normalization. BackdoorBox draws the patch in all four corners. If the attack does not
succeed, a robust classifier (`source.robust_steps`) or a higher rate may help.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from refine.core.bounds import AttackSteps
from refine.core.params import Share
from refine.poisoning.adversarial.clean_label import CleanLabelAttack
from refine.poisoning.adversarial.settings import CleanLabelParams, Perturbation, Step


class Published(Perturbation):
    """Published values."""

    step: Step = 1.5
    steps: AttackSteps = 100
    random_start: bool = False


class Params(CleanLabelParams):
    """Defaults are the values of the REFINE experiments on CIFAR-10 (ImageNet50: rate 1)."""

    rate: Annotated[Share, Field(gt=0)] = 0.25
    pattern: Literal["texture", "grid"] = "texture"
    corners: Literal[1, 4] = 1
    perturbation: Published = Published()


class Attack(CleanLabelAttack[Params]):
    """Patches touch the edges."""

    margin = 0
