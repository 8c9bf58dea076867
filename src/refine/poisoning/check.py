"""What a poisoned data set has to hold before it is written, whichever attack made it; else every figure is idle.

An attack that poisons nothing and triggers nothing, such as `none`, passes. A data set of one class never comes
here: its manifest is refused.
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
    """The checks of one poisoning; each raises a UserError that names the remedy.

    Attributes:
        attack: that is applied.
        train: clean training split.
        test: clean test split.
    """

    attack: AnyAttack
    train: Split
    test: Split

    def labels(self, chosen: Chosen, given: Tensor, to_trigger: Tensor) -> None:
        """There are poisoned and benign training images, every class keeps some, and there is something to trigger.

        Args:
            chosen: training images.
            given: int64 [N], labels that the training images get.
            to_trigger: bool [M], the test images that the trigger is for.
        """
        section = self.attack.setting.section
        if not len(chosen.poisoned) and not to_trigger.any():
            return
        if not len(chosen.poisoned):
            raise UserError(f"the attack poisons none of the {len(given)} training images; change {section}")
        if not to_trigger.any():
            raise UserError(
                f"the trigger would lead each of the {len(to_trigger)} test images to the class that it has; "
                f"choose another {section}.target, or give test images of other classes"
            )
        if len(chosen.poisoned) + len(chosen.cover) == len(given):
            raise UserError(
                f"all {len(given)} training images would carry a trigger and none be benign; lower {section}.rate"
            )
        names, classes = self.train.manifest.classes, len(self.train.manifest.classes)
        before, after = (labels.bincount(minlength=classes) for labels in (self.train.labels, given))
        lost = [names[label] for label in ((before > 0) & (after == 0)).nonzero().flatten().tolist()]
        if lost:
            more = f" (nor any of {len(lost) - 1} other classes)" if len(lost) > 1 else ""
            raise UserError(
                f"poisoning would leave no training image that is labeled {lost[0]}{more}; lower {section}.rate"
            )

    def images(self, chosen: Chosen, poisoned: Tensor, to_trigger: Tensor, triggered: Tensor) -> None:
        """Triggers show. A few images that look alike before and after may be, and are counted aloud.

        What acts on poisoned images while the classifier is trained need not show on them before.

        Args:
            chosen: training images.
            poisoned: uint8 [N, 3, H, W], all training images after poisoning.
            to_trigger: bool [M].
            triggered: uint8 [m, 3, H, W], the test images that the trigger is for, with it.
        """
        if self.attack.attacker_augmentation().poisoned is None:
            self._show("poisoned training", self.train.images, poisoned, chosen.poisoned, chosen.poisoned)
        self._show("cover", self.train.images, poisoned, chosen.cover, chosen.cover)
        rows = to_trigger.nonzero().flatten()
        self._show("triggered test", self.test.images, triggered, rows, torch.arange(len(rows)))

    def _show(self, kind: str, clean: Tensor, changed: Tensor, rows: Tensor, places: Tensor) -> None:
        """Refuses rows of clean images that all look as those places of the changed ones."""
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
            log.warning("%d of %d %s images look as they did without the trigger", alike, len(rows), kind)
