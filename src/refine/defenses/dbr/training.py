"""Training of D-BR: in turn up on what looks poisoned, and down on what looks clean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.core.files import write_json
from refine.defending.retraining import Retraining, retrained, trainable, unchanged
from refine.defending.share import chosen
from refine.defending.train import Task
from refine.defenses.dbr.defense import NAME, Params
from refine.defenses.dbr.guards import Cap, HeldOut, Passes, fields
from refine.training.batches import Batch
from refine.training.lone_image import refuse_lone_image
from refine.training.loop import Weights, batches_of

GUARDS = "guards.json"


@dataclass
class Repair(Retraining):
    """See `training.loop.Task`.

    Attributes:
        watch: the guard that looks after each epoch; None without guards.
    """

    watch: HeldOut | None = None

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        if self.watch is not None:
            self.watch.look(epoch)


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    split = task.split
    if split is not None and split.abstain and params.guards == "on":
        _tell(task, "abstained", split.gate)
        return unchanged(task, f"split {split.name}, {split.gate}")
    repair = repairing(task)
    sha256 = retrained(task, repair)
    if repair.watch is None:
        _tell(task, "finished", "guards are off")
    else:
        outcome = "finished" if repair.watch.fallen is None else "stopped"
        _tell(task, outcome, repair.watch.sentence, [repair.watch.before, *(each for _, each in repair.watch.history)])
    return sha256


def repairing(task: Task) -> Repair:
    """The training of a task, ready to run."""
    params: Params = task.settings
    recipe, compute = params.recipe, task.compute
    images = task.open_images(("label", "split_clean", "split_poisoned"))
    _, clean, poisoned = (column.bool() for column in fields(images, compute))
    guarded = params.guards == "on"
    held_out = _some(clean, params.held_out, task.seed) if guarded else torch.zeros_like(clean)
    up, down = (images.subset(which) for which in (poisoned, clean & ~held_out))
    classifier, precision = trainable(task), compute.precision(recipe.precision)
    cap = Cap(classifier, compute, precision, params.cap) if guarded else None
    statistics = params.bn == "train"
    loss = _Loss(sum(up.sizes), sum(down.sizes), cap)
    repair = Repair(classifier, up, recipe, loss, compute, batch_statistics=statistics)
    if statistics:
        refuse_lone_image(repair.module, down, recipe, compute)
    if guarded:
        repair.watch = HeldOut(classifier, images.subset(held_out), compute, precision, repair.kept)
    repair.batches = Passes([repair.batches, batches_of(down, recipe, compute)], repair.watch)
    return repair


class _Loss:
    """Of a batch that is either all of D_p or all of D_c.

    Args:
        up: images of D_p.
        down: images of D_c, without those that are held out.
        cap: guard of the ascent; None without guards.
    """

    def __init__(self, up: int, down: int, cap: Cap | None) -> None:
        self._parts = (up + down) / up, (up + down) / down  # a figure of one part, averaged over both, is that of it
        self._cap = cap

    def __call__(self, logits: Tensor, pixels: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels, _, flags = batch.fields
        each = functional.cross_entropy(logits, labels, reduction="none")
        entropy = each.mean()
        right = (logits.argmax(dim=1) == labels).float().mean()
        up, down = self._parts
        if not bool(flags[0]):
            return {"loss": entropy, "clean_entropy": down * entropy, "clean_accuracy": down * right}
        raised = torch.ones_like(each) if self._cap is None else self._cap.leaves_room(pixels, labels)
        return {
            "loss": -(each * raised).mean(),
            "poisoned_entropy": up * entropy,
            "poisoned_accuracy": up * right,
            "raised": up * raised.mean(),
        }


def _some(which: Tensor, share: float, seed: int) -> Tensor:
    """A share of the rows where bool [N] is true, bool [N]."""
    rows = which.nonzero().flatten()
    drawn = torch.zeros_like(which)
    drawn[rows[chosen(len(rows), share, Generator().manual_seed(seed), f"defense_settings.{NAME}.held_out")]] = True
    return drawn


def _tell(task: Task, outcome: str, reason: str, accuracies: Sequence[float] = ()) -> None:
    """Writes what the guards did, and the accuracy on held-out images before the first epoch and after each."""
    rounded = [round(each, 6) for each in accuracies]
    write_json(task.folder / GUARDS, {"outcome": outcome, "reason": reason, "held_out_accuracy": rounded})
