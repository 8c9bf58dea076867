"""Makes the models of the calibration, each a folder as an experiment has it, by the stages of the project.

A folder is finished when `model.json` stands in it. What is finished is left alone, so that the same command goes on.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import new_folder, remove, write_json
from refine.core.machine import Machine
from refine.defending.params import STAGE_OF_ITS_OWN
from refine.defending.protocol.defense import NoDefense
from refine.evaluation.answers import answers
from refine.evaluation.metrics import measure
from refine.evaluation.test_sets import TestSets
from refine.models import classifier as classifiers
from refine.models.device import compute
from refine.shards.reading.reader import read_split
from refine_lab.calibration.about import DONE, About
from refine_lab.calibration.plan import CLEAN, LEAST_ACCURACY, LEAST_SUCCESS, Model
from refine_lab.projects import DEFENDER, POISONED
from refine_lab.runs.parameters import effective, read_params

log = logging.getLogger(__name__)

ATTEMPTS = 6
"""Seeds that are tried before a model is given up."""
BATCH = 256


def make(home: Path, project: Path, machine: Machine, wanted: list[Model], *, defend: bool = False) -> None:
    """Makes the models that are not there yet.

    Args:
        home: folder of the models.
        project: the checkout, whose stages are run.
        machine: its settings.
        wanted: which of `plan.models`.
        defend: train REFINE for each of them too.

    Raises:
        UserError: a stage fails, the backdoor of a model cannot be made with several seeds, or what is there was made
            with other parameters.
    """
    for model in wanted:
        folder = home / model.name
        if (folder / DONE).is_file():
            _refuse_other(model, folder, project)
        else:
            _make(model, folder, home / "raw" / model.data, project, machine)
        if defend and not (folder / "models/refine/card.json").is_file():
            if not (folder / DEFENDER).is_dir():  # of an early version, or removed
                _stage(project, folder, "poison_dataset")
                remove(folder / POISONED)
            _stage(project, folder, "train_refine")


def _refuse_other(model: Model, folder: Path, project: Path) -> None:
    about = read_document(folder / DONE, About, f"remove {folder}")
    made, wanted = read_params(folder / "params.yaml"), model.params(project, about.attempt)
    if effective(made, STAGE_OF_ITS_OWN) != effective(wanted, STAGE_OF_ITS_OWN):
        raise UserError(f"{folder} was made with other parameters; remove it, and type the same command again")


def _make(model: Model, folder: Path, raw: Path, project: Path, machine: Machine) -> None:
    for attempt in range(ATTEMPTS):
        remove(folder)
        folder.mkdir(parents=True)
        params = model.params(project, attempt)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        (folder / "data/own/attack").mkdir(parents=True)
        _link_raw(raw, folder, project)
        _stage(project, folder, "poison_dataset")
        _stage(project, folder, "train_backdoor")
        figures = _measured(folder, machine)
        log.info("%s: %s", model.name, figures)
        fine = figures["benign_accuracy"] >= LEAST_ACCURACY[model.data]
        if fine and (model.attack == CLEAN or figures["attack_success_rate"] >= LEAST_SUCCESS):
            remove(folder / "data/poisoned/train")
            target = None if model.attack == CLEAN else model.target
            about = About(
                half=model.half, data=model.data, attack=model.attack, target=target, attempt=attempt, **figures
            )
            write_json(folder / DONE, about.model_dump())
            return
    raise UserError(f"{model.name} is not good enough with {ATTEMPTS} seeds: {figures}; change calibration/plan.py")


def _link_raw(raw: Path, folder: Path, project: Path) -> None:
    """Downloads the data set once, and links it into a model's folder."""
    if not raw.is_dir():
        with new_folder(raw) as part:
            shutil.copy(folder / "params.yaml", part / "params.yaml")
            (part / "data/own/images").mkdir(parents=True)
            _stage(project, part, "download")
    shutil.copytree(raw / "data/raw", folder / "data/raw", copy_function=os.link)


def _stage(project: Path, folder: Path, name: str) -> None:
    ended = subprocess.run(  # noqa: S603
        [sys.executable, str((project / "stages" / f"{name}.py").resolve())],
        cwd=folder,
        env={**os.environ, "DVC_ROOT": str(folder.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise UserError(f"{name} failed in {folder}: {ended.stderr.strip()[-500:]}")


def _measured(folder: Path, machine: Machine) -> dict[str, float]:
    """Benign accuracy and, of an attacked model, attack success rate."""
    tests = TestSets(read_split(folder / "data/raw/test"), read_split(folder / "data/poisoned/test"))
    system = NoDefense(classifiers.load(folder / "models/backdoor")[0]).eval()
    resolved = compute(machine)
    shares = measure(answers(system.to(resolved.device), tests, BATCH, resolved), tests.truth)
    return {name: shares[name] for name in ("benign_accuracy", "attack_success_rate") if name in shares}
