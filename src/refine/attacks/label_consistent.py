"""Label-consistent: perturbed images of the target class with the patch of BadNets (Turner et al. 2019).

    training:  x' = patch(x + d),  |d| <= 8 / 255 by 100 steps of gradient ascent against a benign classifier
    test:      x' = patch(x);  labels of training images stay right

d is computed for the poisoned images alone, against a classifier that sees images normalized as in its training; the
released REFINE code forgets that. BackdoorBox's form of the attack has the patch in all four corners. Where the attack
does not succeed, a robust classifier (`source.robust_steps`) or a higher rate helps.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from refine.core.bounds import AttackSteps
from refine.core.params import Share
from refine.poisoning.adversarial.clean_label import CleanLabelAttack
from refine.poisoning.adversarial.settings import CleanLabelParams, Perturbation, Step


class Published(Perturbation):
    """The perturbation's own values."""

    step: Step = 1.5
    steps: AttackSteps = 100
    random_start: bool = False


class Params(CleanLabelParams):
    """The values of the REFINE experiments on CIFAR-10; on ImageNet50 `rate` is 1 there."""

    rate: Annotated[Share, Field(gt=0)] = 0.25
    pattern: Literal["texture", "grid"] = "texture"
    corners: Literal[1, 4] = 1
    perturbation: Published = Published()


class Attack(CleanLabelAttack[Params]):
    """Patches lie in the very corners."""

    margin = 0
