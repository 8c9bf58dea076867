"""Computes and records a list of runs, each one once.

    python -m refine.reports.rows experiments/attacks.yaml [ATTACK ...] [--commit]

Runs happen in clones of the last commit, in `.rows/`: the checkout here stays free for other work, and its
`params.yaml` as it is. A row that is recorded already is passed over, as is one that another list is computing; one
that was interrupted goes on from its last checkpoint; one that fails does not stop the others. Several lists may run
at once. With `--commit` each run is committed when it ends.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path
from time import sleep

from refine.core.errors import UserError, command
from refine.reports import clones
from refine.reports.clones import Clone
from refine.reports.lists import Row, Rows, checked, read_rows
from refine.reports.record import CODE, git, preset_file, record
from refine.reports.run import HOME, Name

_TRIES = 50
_PAUSE = 0.2

log = logging.getLogger(__name__)


def compute(rows: Rows, wanted: list[str], commit: bool, project: Path) -> None:
    """Computes and records those runs that are not recorded yet.

    Args:
        rows: the list.
        wanted: attacks; all where it is empty.
        commit: each run when it ends.
        project: root of this project.

    Raises:
        UserError: a row is wrong, which is found before the first one is computed, or runs failed, of which each was
            told when it did.
    """
    strangers = set(wanted) - {row.attack for row in rows.rows}
    if strangers:
        raise UserError(f"no row has the attack {min(strangers)}; the list has {', '.join(_attacks(rows))}")
    files = checked(rows, project)
    _compare_with_last_commit(rows, project)
    failed = []
    with clones.shared(project) as clone:
        for row, (name, params) in zip(rows.rows, files, strict=True):
            if wanted and row.attack not in wanted:
                continue
            try:
                _compute_once(rows.preset, row, name, params, commit, project, clone)
            except (UserError, OSError) as error:
                log.error("%s failed: %s", name, error)  # noqa: TRY400 (a sentence for people)
                failed.append(str(name))
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows.rows)} rows failed, as was told above: {', '.join(failed)}; mend what they "
            "say and type the same command again"
        )


def _attacks(rows: Rows) -> list[str]:
    return sorted({row.attack for row in rows.rows})


def _compare_with_last_commit(rows: Rows, project: Path) -> None:
    """Tells what the clones, which have the last commit, do not see of this checkout.

    Raises:
        UserError: the preset is not in the last commit as it is here, so that no run could be recorded.
    """
    preset = preset_file(rows.preset).as_posix()
    changed = git(project, "status", "--porcelain", "--", *CODE, "data/own").splitlines()
    paths = [line.split(maxsplit=1)[1] for line in changed]
    if any(preset.startswith(path) for path in paths):
        raise UserError(f"{preset} is not committed as it is here; commit it, so that its runs can be told from it")
    if paths:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        log.warning(
            "warning: runs are computed from the last commit, without what is not committed here: %s%s",
            ", ".join(paths[:3]),
            more,
        )


def _compute_once(preset: str, row: Row, name: Name, params: str, commit: bool, project: Path, clone: Clone) -> None:
    with clones.lock(project, str(name)) as held:
        if held is None:
            log.info("%s is passed over: another process is computing it", name)
            return
        if (project / HOME / str(name)).is_dir():
            return
        log.info("%s", name)
        if row.machine:
            with clones.alone(project, str(name), held) as own:
                folder = _computed(preset, row, params, project, own, held)
        else:
            folder = _computed(preset, row, params, project, clone, held)
        if commit:
            _commit(project, f"The run {name}", folder)


def _computed(preset: str, row: Row, params: str, project: Path, clone: Clone, held: int) -> Path:
    """Computes a run in a clone, and records it in the project; its folder there."""
    (clone.folder / "params.yaml").write_text(params, encoding="utf-8")
    _repro(clone, row.machine, held)
    return record(clone.folder, project / HOME, preset, row.variant, row.machine)


def _repro(clone: Clone, machine: dict[str, int | str], held: int) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    asked = {name: str(value) for name, value in machine.items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    status = subprocess.run(
        ["dvc", "repro"],  # noqa: S607
        cwd=clone.folder,
        env={**inherited, "PATH": path, **asked},
        pass_fds={clone.lock, held},
        check=False,
    ).returncode
    if status:
        raise UserError(f"`dvc repro` ended with status {status} in {clone.folder}, and said why above")


def _commit(project: Path, subject: str, folder: Path) -> None:
    """Commits one folder, one list after the other; a command of somebody else's that has the index is waited for.

    Raises:
        UserError: git has another reason, or the index stays locked.
    """
    place = str(folder.relative_to(project))
    with clones.lock(project, "index", wait=True):
        for tries_left in reversed(range(_TRIES)):
            try:
                git(project, "add", place)
                git(project, "commit", "--quiet", "-m", subject, "--", place)
            except UserError as error:
                if "index.lock" not in str(error) or not tries_left:
                    raise UserError(f"the run is recorded in {place} and not committed: {error}") from None
                sleep(_PAUSE)
            else:
                return


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m refine.reports.rows", description="Computes and records runs.")
    parser.add_argument("file", type=Path, help="the list, such as experiments/attacks.yaml")
    parser.add_argument("attacks", nargs="*", help="only these (default: all)")
    parser.add_argument("--commit", action="store_true", help="commit each run when it ends")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    compute(read_rows(given.file), given.attacks, given.commit, Path.cwd())


if __name__ == "__main__":
    command(main)
