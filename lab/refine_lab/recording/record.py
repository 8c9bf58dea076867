"""Recording the finished run of a checkout: one folder for each of its defenses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from refine.core.errors import UserError
from refine.core.files import read_json
from refine.defending.params import STAGE_OF_ITS_OWN
from refine_lab import projects
from refine_lab.projects import PARAMS, SplitStages, Stages, preset_file
from refine_lab.recording.folder import write
from refine_lab.recording.runtime import runtime
from refine_lab.runs import parameters, recorded
from refine_lab.runs.name import name_of
from refine_lab.runs.record import Record

log = logging.getLogger(__name__)

NO_MACHINE: Mapping[str, int | str] = MappingProxyType({})


def record_all(project: Path, home: Path, preset: str, variant: str) -> list[Path]:
    """Records a finished run with REFINE and with each further defense of its parameters that was measured.

    Args:
        project: its root.
        home: takes a folder for each defense.
        preset: a file of `presets` that the run's parameters come from.
        variant: one word for what is special about it.

    Returns:
        The folders.

    Raises:
        UserError: nothing was measured yet, or something is out of date, not committed or missing.
    """
    listed = parameters.read_params(project / PARAMS)["defenses"]
    finished = []
    for stages in (Stages(name) for name in (STAGE_OF_ITS_OWN, *listed)):
        if (project / stages.metrics).is_file():
            finished.append(stages)
        else:
            log.warning("%s is not recorded: run `dvc repro %s` first", stages.defense, stages.evaluation)
    if not finished:
        raise UserError("there is nothing to record; run `dvc repro` first")
    for stages in finished:
        _refuse_stale(project, stages.evaluation)
    return [record(project, home, preset, variant, stages.defense) for stages in finished]


def record(
    project: Path,
    home: Path,
    preset: str,
    variant: str,
    defense: str,
    machine: Mapping[str, int | str] = NO_MACHINE,
    retuned: bool = True,
) -> Path:
    """Records a finished run with one defense.

    Args:
        project: its root.
        home: takes a folder for it.
        preset: as above.
        variant: as above.
        defense: its name.
        machine: settings of the machine that were asked for.
        retuned: whether the retuning attack is tried.

    Returns:
        The run's folder.

    Raises:
        UserError: something is out of date, not committed or missing.
    """
    from refine_lab.recording.defender import defender  # loads torch, which lists of runs and pages do without

    stages = Stages(defense)
    _refuse_stale(project, stages.evaluation)
    params = parameters.read_params(project / PARAMS)
    name = name_of(params, preset, defense, variant)
    outputs = projects.hashes(project, (*projects.RAW, projects.CLASSIFIER, stages.model))
    content = Record(
        name=name,
        changes=parameters.changes(_preset(project, preset), params),
        machine=dict(machine),
        commit=projects.commit_of(project),
        **_poisoned(project),
        runtime=runtime(project, stages.evaluation),
        outputs=outputs,
        **({} if name.attack == "none" else _attacked(project, home, defense, outputs, retuned)),
        defender=defender(project, defense),
        split=_split(project, params, defense),
    )
    return write(project, home, content)


def _attacked(project: Path, home: Path, defense: str, outputs: dict[str, str], retuned: bool) -> dict[str, Any]:
    """What is measured of a run with an attack beside that of its clean classifier."""
    from refine_lab.recording import clean, retuning
    from refine_lab.recording.measuring import bench

    images, runs = bench(project), recorded.read_all(home)
    systems = clean.found(project, home, runs.values(), defense, outputs)
    found: dict[str, Any] = {"clean": clean.measured(systems, images)}
    if retuned:
        bare = retuning.already_measured(runs, outputs, systems)
        found["retuning"] = retuning.measured(project, defense, systems, images, bare)
    return found


def _refuse_stale(project: Path, stage: str) -> None:
    stale = projects.out_of_date(project, stage)
    if stale:
        raise UserError(f"{', '.join(stale)} out of date; run `dvc repro` before a run is recorded")


def _split(project: Path, params: dict[str, Any], defense: str) -> dict[str, Any] | None:
    """How good the split is that the defense was given; None if it needs none."""
    name = parameters.split_of(params, defense)
    if name is None:
        return None
    split = SplitStages(name)
    _refuse_stale(project, split.evaluation)
    return dict(read_json(project / split.metrics, f"run `dvc repro {split.evaluation}`"))


def _preset(project: Path, name: str) -> dict[str, Any]:
    shipped = project / preset_file(name)
    if not shipped.is_file():
        known = ", ".join(sorted(path.stem for path in shipped.parent.glob("*.yaml")))
        raise UserError(f"{shipped} is no preset, choose from {known}")
    return parameters.read_params(shipped)


def _poisoned(project: Path) -> dict[str, Any]:
    attack = read_json(project / projects.ATTACK, "run `dvc repro`")
    rates = {name: attack.get(name) for name in ("rate_of_dataset", "rate_of_classes")}
    return {"poisoned": len(attack["poisoned"]), "cover": len(attack["cover"]), **rates}
