"""Checks of a poisoned data set, without which an evaluation would be meaningless.

Attacks that poison nothing and trigger nothing, such as `none`, pass. Data sets of one class need no check here, as
their manifest is refused.
"""

from __future__ import annotations

import logging

from torch import Tensor

from refine.core.errors import UserError
from refine.poisoning.attack import Chosen

log = logging.getLogger(__name__)


def refuse_useless(
    section: str, chosen: Chosen, labels: Tensor, given: Tensor, to_trigger: Tensor, names: list[str]
) -> None:
    """Requires poisoned and benign training images, images of every class, and test images to trigger.

    Args:
        section: of `params.yaml` with the settings of the attack.
        chosen: the selected training images.
        labels: int64 [N], original labels of the training images.
        given: int64 [N], their labels after poisoning.
        to_trigger: bool [M], mask of the test images that get the trigger.
        names: of the classes.

    Raises:
        UserError: some are missing.
    """
    if not len(chosen.poisoned) and not to_trigger.any():
        return
    if not len(chosen.poisoned):
        raise UserError(f"the attack poisons none of the {len(given)} training images; change {section}")
    if not to_trigger.any():
        raise UserError(
            f"the trigger would lead each of the {len(to_trigger)} test images to its own class; "
            f"choose another {section}.target, or add test images of other classes"
        )
    if len(chosen.poisoned) + len(chosen.cover) == len(given):
        raise UserError(
            f"all {len(given)} training images would have a trigger and none would be benign; lower {section}.rate"
        )
    before, after = (each.bincount(minlength=len(names)) for each in (labels, given))
    lost = [names[label] for label in ((before > 0) & (after == 0)).nonzero().flatten().tolist()]
    if lost:
        more = f" (nor any of {len(lost) - 1} other classes)" if len(lost) > 1 else ""
        raise UserError(f"poisoning would leave no training image with the label {lost[0]}{more}; lower {section}.rate")


class Shown:
    """Counts the images that a trigger leaves as they are, and refuses one that changes none of them.

    Args:
        kind: of images, for messages.
        section: of `params.yaml` with the settings of the attack.
    """

    def __init__(self, kind: str, section: str) -> None:
        self._kind = kind
        self._section = section
        self._images = 0
        self._alike = 0

    def add(self, clean: Tensor, changed: Tensor) -> None:
        """Counts images before and after, uint8 [n, 3, H, W] each."""
        self._images += len(clean)
        self._alike += int((clean == changed).flatten(1).all(dim=1).sum())

    def refuse_hidden(self) -> None:
        """Logs how many stayed the same.

        Raises:
            UserError: there were images, and all of them did.
        """
        if self._alike and self._alike == self._images:
            raise UserError(
                f"the trigger changes none of the {self._alike} {self._kind} images by a whole level of brightness; "
                f"make it stronger in {self._section}"
            )
        if self._alike:
            log.warning("the trigger does not change %d of %d %s images", self._alike, self._images, self._kind)
