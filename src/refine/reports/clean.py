"""What a clean classifier makes of an attack's triggered images: the floor of its success rate with the trigger on.

A trigger that hides or bends what it is put on leads some images to the target without any backdoor. How many, the
recorded run of the attack `none` tells: the same data, network, recipe and seed, and nothing poisoned. Its models come
from DVC's cache, by the hashes that were recorded with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.repo import Repo
from dvc_data.hashfile import load
from dvc_data.hashfile.checkout import CheckoutError, checkout
from dvc_data.hashfile.hash_info import HashInfo

from refine.core.errors import UserError
from refine.core.machine import machine
from refine.defending.protocol.defense import Defense, NoDefense
from refine.defenses.refine import defense as refine
from refine.evaluation.answers import probabilities
from refine.evaluation.metrics import DIGITS, misread, share
from refine.evaluation.test_sets import TestSets
from refine.models.device import Compute, compute
from refine.reports import run
from refine.reports.run import Clean, OnTriggered, Run
from refine.shards.reading.reader import read_split

log = logging.getLogger(__name__)

_DATA = ("data/raw/train", "data/raw/test")
_CLASSIFIER, _DEFENSE = "models/backdoor", "models/refine"
_ATTACKED = "data/poisoned/test"


def outputs(project: Path) -> dict[str, str]:
    """DVC's hashes of the data that a run was made of, and of its models, by their paths."""
    with Repo(str(project)) as repo:
        hashes = {out.def_path: str(out.hash_info.value) for out in repo.index.outs}
    return {path: hashes[path] for path in (*_DATA, _CLASSIFIER, _DEFENSE)}


def measured(project: Path, home: Path, made: dict[str, str]) -> Clean | None:
    """What the clean classifier, and its defense where that is of the same recipe, answer to a run's triggered images.

    Args:
        project: with the finished run.
        home: of the recorded runs, one of which is that of the clean classifier.
        made: the run's `outputs`.

    Returns:
        None without such a run, or where its models cannot be had; the log says so.
    """
    params = run.whole(project / "params.yaml")
    clean = _fitting(run.read_all(home).values(), params, made)
    if clean is None:
        log.warning(
            "asr_floor_triggered is left out: no run of the attack none with this data, network, recipe and seed "
            "is recorded; record one first"
        )
        return None
    try:
        return _measured(project, clean, home, params)
    except UserError as error:
        log.warning("asr_floor_triggered is left out: %s", error)
        return None


def _fitting(recorded: Iterable[Run], params: dict[str, Any], made: dict[str, str]) -> Run | None:
    """The clean run of the same data and classifier; one with the same recipe of the defense before others."""
    fitting = [
        each
        for each in recorded
        if each.facts.name.attack == "none"
        and all(each.facts.outputs.get(path) == made[path] for path in _DATA)
        and _same("train_backdoor", each, params)
    ]
    return min(fitting, key=lambda each: (not _same("train_refine", each, params), each.folder.name), default=None)


def _same(section: str, recorded: Run, params: dict[str, Any]) -> bool:
    return bool(run.whole(recorded.folder / "params.yaml")[section] == params[section])


def _measured(project: Path, clean: Run, home: Path, params: dict[str, Any]) -> Clean:
    tests = TestSets(read_split(project / _DATA[1]), read_split(project / _ATTACKED))
    batch_size, resolved = params["evaluate"]["batch_size"], compute(machine())
    with TemporaryDirectory() as folder:
        classifier, defense = (_from_cache(home, clean, path, Path(folder)) for path in (_CLASSIFIER, _DEFENSE))
        defended = refine.load(defense, classifier).to(resolved.device)
    both = _same("train_refine", clean, params)
    return Clean(
        run=clean.folder.name,
        no_defense=_on_triggered(NoDefense(defended.classifier), tests, batch_size, resolved),
        refine=_on_triggered(defended, tests, batch_size, resolved) if both else None,
    )


def _from_cache(home: Path, recorded: Run, path: str, folder: Path) -> Path:
    """An output of a recorded run, in a folder; from the cache of the project that keeps the runs.

    Raises:
        UserError: the cache does not hold it any more.
    """
    target = folder / Path(path).name
    try:
        with Repo(Repo.find_root(str(home))) as repo:
            cache = repo.cache.local
            content = load(cache, HashInfo("md5", recorded.facts.outputs[path]))
            checkout(str(target), cache.fs, content, cache, quiet=True)
    except (OSError, CheckoutError):
        raise UserError(
            f"{path} of the run {recorded.folder.name} is not in DVC's cache; remove its folder and record it again"
        ) from None
    return target


def _on_triggered(system: Defense, tests: TestSets, batch_size: int, resolved: Compute) -> OnTriggered:
    said, truth = probabilities(system, tests.triggered, batch_size, resolved).argmax(dim=1), tests.truth
    return OnTriggered(
        asr_floor_triggered=round(share(said == truth.given), DIGITS),
        robust_accuracy=round(share(said == truth.behind), DIGITS),
        misread=misread(said, truth, tests.clean.manifest.classes),
    )
