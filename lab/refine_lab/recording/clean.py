"""A clean classifier's answers to an attack's triggered images: the floor of its success rate with the trigger on.

A trigger that hides or bends what it is put on leads some images to the target without any backdoor. How many, the
recorded run of the attack `none` shows: the same data, network, recipe and seed, and nothing poisoned. Its models come
from DVC's cache, by the hashes that were recorded with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from refine.core.errors import UserError
from refine.defending.loading import load
from refine.defending.protocol.defense import Defense, NoDefense
from refine.evaluation.metrics import DIGITS, misread, share
from refine.models import classifier as classifiers
from refine_lab.projects import CLASSIFIER, PARAMS, RAW, Stages
from refine_lab.recording.cache import from_cache
from refine_lab.recording.measuring import Bench
from refine_lab.runs.parameters import effective, read_params
from refine_lab.runs.record import Clean, OnTriggered
from refine_lab.runs.recorded import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CleanSystems:
    """Both systems of a recorded run without attack.

    Attributes:
        run: its name.
        bare: its classifier.
        defended: its defended classifier; None where its defense is another one, or was trained by another recipe.
    """

    run: str
    bare: Defense
    defended: Defense | None


def found(project: Path, home: Path, runs: Iterable[Run], defense: str, outputs: dict[str, str]) -> CleanSystems | None:
    """The clean classifier that belongs to a run, and its defense where that is the same.

    Args:
        project: with the finished run.
        home: of the recorded runs.
        runs: these, one of which is that of the clean classifier.
        defense: of the run.
        outputs: the run's, see `runs.record.Record`.

    Returns:
        None without such a run, or where its models cannot be had; the log says so.
    """
    params = read_params(project / PARAMS)
    fitting = _fitting(runs, params, defense, outputs)
    if not fitting:
        log.warning(
            "asr_floor_triggered is left out: no run of the attack none with this data, network, recipe and seed "
            "is recorded; record one first"
        )
    for clean in fitting:
        try:
            return _loaded(home, clean, _same_defense(clean, params, defense))
        except UserError as error:
            log.warning("asr_floor_triggered is left out by %s: %s", clean.folder.name, error)
    return None


def measured(systems: CleanSystems | None, images: Bench) -> Clean | None:
    """Their answers to the triggered images of a run."""
    if systems is None:
        return None
    return Clean(
        run=systems.run,
        no_defense=_on_triggered(systems.bare, images),
        defended=None if systems.defended is None else _on_triggered(systems.defended, images),
    )


def _fitting(runs: Iterable[Run], params: dict[str, Any], defense: str, outputs: dict[str, str]) -> list[Run]:
    """The clean runs of the same data and classifier; those with the same defense before others."""
    fitting = [
        each
        for each in runs
        if each.record.name.attack == "none"
        and each.shares(outputs, RAW)
        and each.params["train_backdoor"] == params["train_backdoor"]
        and _held_out(each.params) == _held_out(params)
    ]
    return sorted(fitting, key=lambda each: (not _same_defense(each, params, defense), each.folder.name))


def _held_out(params: dict[str, Any]) -> float:
    """Share of the images that its attacker, and so its clean classifier, does not have."""
    share: float = params["poison_dataset"].get("held_out", 0.0)
    return share


def _same_defense(clean: Run, params: dict[str, Any], defense: str) -> bool:
    """Whether a clean run has the same defense as one with an attack, trained in the same way."""
    if clean.defense != defense:
        return False
    one, other = (effective(each, defense) for each in (clean.params, params))
    return all(one.get(name) == other.get(name) for name in ("train_refine", "defense_data", "defense_settings", "split_settings"))


def _loaded(home: Path, clean: Run, same_defense: bool) -> CleanSystems:
    with TemporaryDirectory() as folder:
        classifier = from_cache(home, clean, CLASSIFIER, Path(folder))
        bare, defended = NoDefense(classifiers.load(classifier)[0]), None
        if same_defense:
            defended = load(from_cache(home, clean, Stages(clean.defense).model, Path(folder)), classifier)
    return CleanSystems(clean.folder.name, bare, defended)


def _on_triggered(system: Defense, images: Bench) -> OnTriggered:
    answered, truth = images.to_triggered(system).argmax(dim=1), images.tests.truth
    return OnTriggered(
        asr_floor_triggered=round(share(answered == truth.given), DIGITS),
        robust_accuracy=round(share(answered == truth.behind), DIGITS),
        misread=misread(answered, truth, images.tests.clean.manifest.classes),
    )
