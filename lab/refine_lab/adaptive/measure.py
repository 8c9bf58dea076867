"""An attacker who knows the defense: a trigger that is sought through the whole defended classifier.

The trigger of the attack that the classifier was trained with may be gone. But whoever holds the defended classifier,
with its transform and its label map, can seek another one by following gradients through all of it: one pattern for
all images, bounded in each pixel. Two questions are asked of it: does it also work on a defense that the same defender
trained again, with other weights and another label map? And does the same search succeed on a classifier that never
had a backdoor? If it does, the pattern says nothing about the backdoor: any classifier yields to it.

The pattern may also be sought for images that have the trigger already, to bring back a backdoor that a defense only
hides (OBA; Zhu et al., NeurIPS 2024). Their measure of what stays of it inside the network, BEC, is not computed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from refine.core.errors import UserError
from refine.defending.loading import load
from refine.defending.protocol.defense import Defense, NoDefense
from refine.evaluation.answers import predictions
from refine.evaluation.metrics import DIGITS, interval, share
from refine.models import classifier as classifiers
from refine.models.device import Compute
from refine.poisoning import saved
from refine.poisoning.adversarial.pattern import Ball, Box, sought_pattern
from refine.poisoning.attack import NONE
from refine.poisoning.overlay import to_levels
from refine.shards.reading.reader import Split, read_split
from refine_lab.projects import ATTACK, CLASSIFIER, RAW
from refine_lab.systems import BARE

_AT_ONCE = 256


@dataclass(frozen=True)
class Wanted:
    """Attributes:
    target: class that the pattern is to lead to.
    bound: of the pattern.
    steps: of the search.
    seed: of the search.
    compute: device and threads.
    triggered: the images have the trigger of the experiment's attack, also those of the control.
    """

    target: int
    bound: Box | Ball
    steps: int
    seed: int
    compute: Compute
    triggered: bool = False


def measure(experiment: Path, defense: Path, others: list[Path], clean: Path | None, wanted: Wanted) -> dict[str, Any]:
    """Seeks patterns and tells how often each leads to the target.

    Args:
        experiment: folder with `data/raw` and `models/backdoor`.
        defense: folder of a defense of that classifier, through which the pattern is sought.
        others: further defenses of it, on which the pattern is tried.
        clean: another experiment on the same data, without attack, with a defense at the same place.
        wanted: what is sought.

    Returns:
        For JSON: `rows`, each with the system that the pattern was sought through, the one that it was tried on, the
        share of the test images of other classes that it leads to the target with its interval, the share without it,
        and the share that are recognized with it; and all settings.

    Raises:
        UserError: a folder is damaged, or the classifiers do not fit the images.
    """
    train, test = (read_split(experiment / path) for path in RAW)
    if wanted.target >= len(test.manifest.classes):
        raise UserError(f"there is no class {wanted.target} in {experiment}; give one from 0 on")
    learned, tested = (_shown(split, experiment, wanted) for split in (train, test))
    systems = _systems(experiment, defense, wanted)
    tried = {**systems, **{path.name: _loaded(path, experiment, wanted) for path in others}}
    rows = []
    for name, system in systems.items():
        pattern = _pattern(system, learned.images, wanted)
        rows += [_row(name, other, tried[other], pattern, tested, wanted) for other in tried]
    if clean is not None:
        for name, system in _systems(clean, clean / defense.relative_to(experiment), wanted).items():
            pattern = _pattern(system, learned.images, wanted)
            told = f"clean {name}"
            rows.append(_row(told, told, system, pattern, tested, wanted))
    return {
        "rows": rows,
        "images": len(tested.keys),
        "target": wanted.target,
        "triggered": wanted.triggered,
        "bound": {"kind": type(wanted.bound).__name__.lower(), **asdict(wanted.bound)},
        "steps": wanted.steps,
        "seed": wanted.seed,
    }


def _systems(experiment: Path, defense: Path, wanted: Wanted) -> dict[str, Defense]:
    """The classifier of an experiment without defense and with one, by their names."""
    bare = NoDefense(classifiers.load(experiment / CLASSIFIER)[0]).eval().to(wanted.compute.device)
    return {BARE: bare, defense.name: _loaded(defense, experiment, wanted)}


def _loaded(defense: Path, experiment: Path, wanted: Wanted) -> Defense:
    return load(defense, experiment / CLASSIFIER).to(wanted.compute.device)


def _pattern(system: Defense, images: Tensor, wanted: Wanted) -> Tensor:
    """The pattern in levels, float32 [3, side, side]."""
    generator, device = Generator().manual_seed(wanted.seed), wanted.compute.device
    side, bound = images.shape[-1], wanted.bound
    return sought_pattern(system, images, wanted.target, side, bound, wanted.steps, generator, device)


def _shown(split: Split, experiment: Path, wanted: Wanted) -> Split:
    """The images of other classes than the target, with the trigger where that is wanted, and their true labels."""
    others = split.subset(split.labels != wanted.target)
    if not wanted.triggered:
        return others
    folder = (experiment / ATTACK).parent
    attack = saved.load(folder, wanted.compute.machine)
    if attack.setting.name == NONE:
        raise UserError(f"the attack in {folder} has no trigger; take an experiment with one")
    target = getattr(attack.params, "target", wanted.target)
    if target != wanted.target:
        raise UserError(f"the trigger in {folder} leads to class {target}; give --target {target}")
    parts = zip(torch.split(others.images, _AT_ONCE), torch.split(others.keys, _AT_ONCE), strict=True)
    return replace(others, images=torch.cat([attack.trigger(*part) for part in parts]))


def _row(sought: str, tried: str, system: Defense, pattern: Tensor, images: Split, wanted: Wanted) -> dict[str, Any]:
    triggered = replace(images, images=to_levels(images.images + pattern))
    before, after = (predictions(system, split, _AT_ONCE, wanted.compute) for split in (images, triggered))
    success = share(after == wanted.target)
    return {
        "sought_through": sought,
        "tried_on": tried,
        "success": round(success, DIGITS),
        "interval_95": interval(success, len(after)),
        "without": round(share(before == wanted.target), DIGITS),
        "robust_accuracy": round(share(after == images.labels), DIGITS),
    }
