"""CL: perturbed images of the target class with a pattern in four corners (Turner et al. 2018).

    training:  x' = patch(x + d),  |d| <= 8 / 255 by 4 steps of gradient ascent from a random start
    test:      x' = patch(x);  training images keep their labels

The pattern is that of `badnets_grid`; in the other three corners it is mirrored, one pixel away from the top and the
left edge.
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

    step: Step = 2.0
    steps: AttackSteps = 4
    random_start: bool = True


class Params(CleanLabelParams):
    """Defaults are the values of D-ST and D-BR."""

    rate: Annotated[Share, Field(gt=0)] = 0.1
    pattern: Literal["texture", "grid"] = "grid"
    corners: Literal[1, 4] = 4
    perturbation: Published = Published()


class Attack(CleanLabelAttack[Params]):
    """Patches are one pixel away from the top and the left edge."""

    margin = 1
