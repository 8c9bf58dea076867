"""Checks of a poisoned data set before it is written, without which an evaluation would be meaningless.

Attacks that poison nothing and trigger nothing, such as `none`, pass. Data sets of one class need no check here, as
their manifest is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.poisoning.attack import AnyAttack, Chosen
from refine.shards.reading.reader import Split

log = logging.getLogger(__name__)

_BATCH = 512


@dataclass(frozen=True)
class Checks:
    """Checks of one poisoned data set; each raises a UserError with a remedy.

    Attributes:
        attack: which is applied.
        train: clean training split.
        test: clean test split.
    """

    attack: AnyAttack
    train: Split
    test: Split

    def labels(self, chosen: Chosen, given: Tensor, to_trigger: Tensor) -> None:
        """Requires poisoned and benign training images, images of every class, and test images to trigger.

        Args:
            chosen: the selected training images.
            given: int64 [N], labels of the training images after poisoning.
            to_trigger: bool [M], mask of the test images that get the trigger.
        """
        section = self.attack.setting.section
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
        names, classes = self.train.manifest.classes, len(self.train.manifest.classes)
        before, after = (labels.bincount(minlength=classes) for labels in (self.train.labels, given))
        lost = [names[label] for label in ((before > 0) & (after == 0)).nonzero().flatten().tolist()]
        if lost:
            more = f" (nor any of {len(lost) - 1} other classes)" if len(lost) > 1 else ""
            raise UserError(
                f"poisoning would leave no training image with the label {lost[0]}{more}; lower {section}.rate"
            )

    def images(self, chosen: Chosen, poisoned: Tensor, to_trigger: Tensor, triggered: Tensor) -> None:
        """Requires that triggers change images. If only some images stay the same, their number is logged.

        Poisoned images may stay the same if the attack changes them while the classifier is trained.

        Args:
            chosen: the selected training images.
            poisoned: uint8 [N, 3, H, W], all training images after poisoning.
            to_trigger: bool [M], mask of the test images that get the trigger.
            triggered: uint8 [m, 3, H, W], these images with the trigger.
        """
        if self.attack.attacker_augmentation().poisoned is None:
            self._show("poisoned training", self.train.images, poisoned, chosen.poisoned, chosen.poisoned)
        self._show("cover", self.train.images, poisoned, chosen.cover, chosen.cover)
        rows = to_trigger.nonzero().flatten()
        self._show("triggered test", self.test.images, triggered, rows, torch.arange(len(rows)))

    def _show(self, kind: str, clean: Tensor, changed: Tensor, rows: Tensor, places: Tensor) -> None:
        """Refuses if the clean images in `rows` are all equal to the changed images in `places`."""
        alike = 0
        for start in range(0, len(rows), _BATCH):
            some = slice(start, start + _BATCH)
            alike += int((clean[rows[some]] == changed[places[some]]).flatten(1).all(dim=1).sum())
        if alike and alike == len(rows):
            raise UserError(
                f"the trigger changes none of the {alike} {kind} images by a whole level of brightness; "
                f"make it stronger in {self.attack.setting.section}"
            )
        if alike:
            log.warning("the trigger does not change %d of %d %s images", alike, len(rows), kind)
