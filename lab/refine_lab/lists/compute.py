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
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from refine.core import starter
from refine.core.errors import UserError
from refine_lab.lists import clones, plan
from refine_lab.lists.clones import Clone
from refine_lab.lists.commit import commit_run, compare_with_last_commit
from refine_lab.lists.parts import Part, make_once, parts
from refine_lab.lists.rows import Row, Rows
from refine_lab.projects import PARAMS, SplitStages, Stages, hashes
from refine_lab.recording.record import record
from refine_lab.runs.name import Name
from refine_lab.runs.parameters import read_params, split_of
from refine_lab.runs.recorded import HOME

log = logging.getLogger(__name__)


def compute(rows: Rows, wanted: Collection[str], commit: bool, project: Path, keep_going: bool = True) -> None:
    """Computes and records those runs that are not recorded yet.

    Args:
        rows: the list.
        wanted: attacks; all where it is empty.
        commit: each run when it ends.
        project: root of this project.
        keep_going: compute the others where one fails.

    Raises:
        UserError: a row is wrong, which is found before the first one is computed, or runs failed, which the log said
            of each when it did.
    """
    failed = Failed(len(rows.rows))
    todo = chosen(rows, wanted, project)
    with clones.shared(project) as clone:
        for row, name, params in todo:
            try:
                folder = _compute_once(rows.preset, row, name, params, project, clone)
                if folder and commit:
                    commit_run(project, folder)
            except (UserError, OSError) as error:
                failed.note(name, error)
                if not keep_going:
                    break
    failed.tell()


def chosen(rows: Rows, wanted: Collection[str], project: Path) -> list[tuple[Row, Name, str]]:
    """The rows with these attacks, and name and parameters file of their runs; the whole list is checked.

    Raises:
        UserError: a row is wrong, or none has one of the attacks.
    """
    listed = sorted({row.attack for row in rows.rows})
    strangers = set(wanted) - set(listed)
    if strangers:
        raise UserError(f"no row has the attack {min(strangers)}; the list has {', '.join(listed)}")
    planned = plan.checked(rows, project)
    compare_with_last_commit(rows.preset, project)
    return [(row, name, params) for row, name, params in planned if not wanted or row.attack in wanted]


class Failed:
    """The runs of a list that failed.

    Args:
        rows: in the list.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._names: list[str] = []

    def note(self, name: Name, why: Exception) -> None:
        """Says so in the log."""
        log.error("%s failed: %s", name, why)
        self._names.append(str(name))

    def tell(self) -> None:
        """Ends a list.

        Raises:
            UserError: a run failed.
        """
        if self._names:
            raise UserError(
                f"{len(self._names)} of {self._rows} rows failed, each for the reason given above: "
                f"{', '.join(self._names)}; mend that and type the same command again"
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
        cache = clones.cache_of(project)
        for part in parts(params, row.defense, clone.code):
            make_once(project, cache, part, partial(make_in, clone, params, part, held))
        return _computed(preset, row, params, project, clone, held)


def _computed(preset: str, row: Row, params: str, project: Path, clone: Clone, held: int) -> Path:
    """Computes a run in a clone, and records it in the project; its folder there."""
    return computed_in(clone, preset, row, params, project / HOME, {held})


def make_in(clone: Clone, params: str, part: Part, *inherited: int) -> str:
    """Makes something that runs have in common, in a clone, whose cache then has it; DVC's hash of its output.

    Args:
        clone: that this process holds.
        params: content of the parameters file of a run that needs it.
        part: what.
        inherited: descriptors that DVC keeps open, besides the clone's lock.

    Raises:
        UserError: a stage failed.
    """
    (clone.folder / PARAMS).write_text(params, encoding="utf-8")
    repro(clone, {}, [part.stage], inherited)
    return hashes(clone.folder, (part.output,))[part.output.as_posix()]


def computed_in(clone: Clone, preset: str, row: Row, params: str, home: Path, inherited: Collection[int] = ()) -> Path:
    """Computes a run in a clone, and records it in a folder.

    Args:
        clone: that this process holds.
        preset: of the list.
        row: of the list.
        params: content of the run's parameters file.
        home: takes the run's folder.
        inherited: descriptors that DVC keeps open, besides the clone's lock.

    Returns:
        The run's folder.

    Raises:
        UserError: a stage failed, or the run cannot be recorded.
    """
    (clone.folder / PARAMS).write_text(params, encoding="utf-8")
    repro(clone, row.machine, _stages(clone.folder / PARAMS, row.defense), inherited)
    return record(clone.folder, home, preset, row.variant, row.defense, row.machine, retuned=row.retuned)


def _stages(file: Path, defense: str) -> list[str]:
    """The last stages that a defense needs: its evaluation, and that of the split that it is given."""
    split = split_of(read_params(file), defense)
    return [Stages(defense).evaluation, *([SplitStages(split).evaluation] if split else [])]


def repro(clone: Clone, machine: Mapping[str, int | str], stages: list[str], inherited: Collection[int] = ()) -> None:
    """Runs stages with all before them, and no others; they end with this process.

    Args:
        clone: with the parameters that they read.
        machine: settings of the machine that they are run with.
        stages: their names.
        inherited: descriptors that DVC keeps open, besides the clone's lock.

    Raises:
        UserError: one failed.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    asked = {name: str(value) for name, value in machine.items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    status = subprocess.run(  # noqa: S603
        ["dvc", "repro", *stages],  # noqa: S607
        cwd=clone.folder,
        env={**own, "PATH": path, **asked, **starter.mark()},
        pass_fds={clone.lock, *inherited},
        check=False,
    ).returncode
    if status:
        raise UserError(
            f"`dvc repro {' '.join(stages)}` ended with status {status} in {clone.folder}, for the reason given above"
        )
