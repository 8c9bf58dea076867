"""Computing and recording a list of runs, each one once.

Runs happen in clones of the last commit, in `.rows/`: the checkout here stays free for other work, and its
`params.yaml` as it is. A row that is recorded already is passed over, as is one that another list is computing; one
that was interrupted goes on from its last checkpoint; one that fails does not stop the others. Several lists may run
at once.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from refine.core.errors import UserError
from refine_lab.lists import clones, plan
from refine_lab.lists.clones import Clone
from refine_lab.lists.commit import commit_run, compare_with_last_commit
from refine_lab.lists.rows import Row, Rows
from refine_lab.projects import PARAMS, SplitStages, Stages
from refine_lab.recording.record import record
from refine_lab.runs.name import Name
from refine_lab.runs.parameters import read_params, split_of
from refine_lab.runs.recorded import HOME

log = logging.getLogger(__name__)


def compute(rows: Rows, wanted: Collection[str], commit: bool, project: Path) -> None:
    """Computes and records those runs that are not recorded yet.

    Args:
        rows: the list.
        wanted: attacks; all where it is empty.
        commit: each run when it ends.
        project: root of this project.

    Raises:
        UserError: a row is wrong, which is found before the first one is computed, or runs failed, which the log said
            of each when it did.
    """
    listed = sorted({row.attack for row in rows.rows})
    strangers = set(wanted) - set(listed)
    if strangers:
        raise UserError(f"no row has the attack {min(strangers)}; the list has {', '.join(listed)}")
    planned = plan.checked(rows, project)
    compare_with_last_commit(rows.preset, project)
    failed = []
    with clones.shared(project) as clone:
        for row, name, params in planned:
            if wanted and row.attack not in wanted:
                continue
            try:
                folder = _compute_once(rows.preset, row, name, params, project, clone)
                if folder and commit:
                    commit_run(project, folder)
            except (UserError, OSError) as error:
                log.error("%s failed: %s", name, error)  # noqa: TRY400 (a sentence for people)
                failed.append(str(name))
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows.rows)} rows failed, each for the reason given above: {', '.join(failed)}; "
            "mend that and type the same command again"
        )


def _compute_once(preset: str, row: Row, name: Name, params: str, project: Path, clone: Clone) -> Path | None:
    """The run's new folder; None where it is recorded already, or another process computes it."""
    with clones.lock(project, str(name)) as held:
        if held is None:
            log.info("%s is passed over: another process is computing it", name)
            return None
        if (project / HOME / str(name)).is_dir():
            return None
        log.info("%s", name)
        if row.machine:
            with clones.alone(project, str(name), held) as own:
                return _computed(preset, row, params, project, own, held)
        return _computed(preset, row, params, project, clone, held)


def _computed(preset: str, row: Row, params: str, project: Path, clone: Clone, held: int) -> Path:
    """Computes a run in a clone, and records it in the project; its folder there."""
    (clone.folder / PARAMS).write_text(params, encoding="utf-8")
    _repro(clone, row, _stages(clone.folder / PARAMS, row.defense), held)
    return record(clone.folder, project / HOME, preset, row.variant, row.defense, row.machine)


def _stages(file: Path, defense: str) -> list[str]:
    """The last stages that a defense needs: its evaluation, and that of the split that it is given."""
    split = split_of(read_params(file), defense)
    return [Stages(defense).evaluation, *([SplitStages(split).evaluation] if split else [])]


def _repro(clone: Clone, row: Row, stages: list[str], held: int) -> None:
    """Runs stages for a row with all before them, and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    asked = {name: str(value) for name, value in row.machine.items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    status = subprocess.run(  # noqa: S603
        ["dvc", "repro", *stages],  # noqa: S607
        cwd=clone.folder,
        env={**inherited, "PATH": path, **asked},
        pass_fds={clone.lock, held},
        check=False,
    ).returncode
    if status:
        raise UserError(
            f"`dvc repro {' '.join(stages)}` ended with status {status} in {clone.folder}, for the reason given above"
        )
