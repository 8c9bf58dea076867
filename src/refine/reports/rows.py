"""Computes and records a list of runs, each one once.

    python -m refine.reports.rows experiments/attacks.yaml [ATTACK ...] [--commit]

Runs happen in a clone of the last commit, in `.rows/`, which shares this project's cache: the checkout here stays
free for other work, and its `params.yaml` as it is. A row that is recorded already is passed over; one that was
interrupted goes on from its last checkpoint. With `--commit` each run is committed when it ends.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import yaml
from dvc.repo import Repo
from pydantic import Field, ValidationError

from refine.params.check import check
from refine.params.reading import Section, sentence
from refine.reports import run
from refine.reports.record import git, preset_file, record
from refine.reports.run import HOME, Name
from refine.system.errors import UserError, command

CLONE = Path(".rows")

log = logging.getLogger(__name__)


class Row(Section):
    """One run.

    Attributes:
        attack: its name.
        variant: one word for what is special about it.
        seed: of all three sections that have one.
        changes: parameters that depart from the preset, by their dotted names.
        why: the reason, for the reader of the table.
    """

    attack: str
    variant: str = "default"
    seed: int = 1
    changes: dict[str, Any] = Field(default={})
    why: str = ""


class Rows(Section):
    """Content of a list of runs.

    Attributes:
        preset: that they depart from, a file of `presets`.
        rows: the runs, in the order in which they are computed and shown.
    """

    preset: str
    rows: Annotated[list[Row], Field(min_length=1)]

    def params(self, row: Row, preset: dict[str, Any]) -> dict[str, Any]:
        """The parameters of a run.

        Raises:
            UserError: a change goes below what is no mapping.
        """
        params = copy.deepcopy(preset)
        params["poison_dataset"]["attack"]["name"] = row.attack
        for section in run.SEEDED:
            params[section]["seed"] = row.seed
        for name, value in row.changes.items():
            *parents, last = name.split(".")
            inner = params
            for parent in parents:
                inner = inner.setdefault(parent, {})
                if not isinstance(inner, dict):
                    raise UserError(
                        f"{name} cannot be changed, because {parent} is {inner!r}; give {parent} as a whole"
                    )
            inner[last] = value
        return params


def read_rows(path: Path) -> Rows:
    """Reads a list of runs.

    Raises:
        UserError: it is missing or not a list of runs.
    """
    try:
        return Rows.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `ls experiments` shows what is there") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no list of runs: {error}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {sentence('list', error)}") from None


def names(rows: Rows, project: Path) -> list[Name]:
    """The names of the runs, in order."""
    return [name for name, _ in _planned(rows, project)]


def _planned(rows: Rows, project: Path) -> list[tuple[Name, dict[str, Any]]]:
    """Name and parameters of each run, in order."""
    preset = run.whole(project / preset_file(rows.preset))
    changed = [(row, rows.params(row, preset)) for row in rows.rows]
    return [(run.name_of(params, rows.preset, row.variant), params) for row, params in changed]


def checked(rows: Rows, project: Path) -> list[tuple[Name, str]]:
    """Name and parameters file of each run, in order.

    Raises:
        UserError: the first thing that is wrong, a run that was recorded with other parameters included.
    """
    planned = _planned(rows, project)
    for name, params in planned:
        refuse_other(project / HOME / str(name), params)
    files = [(name, yaml.safe_dump(params, sort_keys=False)) for name, params in planned]
    with TemporaryDirectory() as folder:
        for row, (_, text) in zip(rows.rows, files, strict=True):
            path = Path(folder) / f"{row.attack}, variant {row.variant}"
            path.write_text(text, encoding="utf-8")
            check(path)
    return files


def compute(rows: Rows, wanted: list[str], commit: bool, project: Path) -> None:
    """Computes and records those runs that are not recorded yet.

    Args:
        rows: the list.
        wanted: attacks; all where it is empty.
        commit: each run when it ends.
        project: root of this project.

    Raises:
        UserError: a row is wrong, which is found before the first one is computed, or a stage failed.
    """
    files = checked(rows, project)
    clone = _clone(project)
    for row, (name, params) in zip(rows.rows, files, strict=True):
        if (project / HOME / str(name)).is_dir() or (wanted and row.attack not in wanted):
            continue
        log.info("%s", name)
        (clone / "params.yaml").write_text(params, encoding="utf-8")
        _repro(clone)
        folder = record(clone, project / HOME, rows.preset, row.variant)
        if commit:
            git(project, "add", str(folder.relative_to(project)))
            git(project, "commit", "--quiet", "-m", f"The run {name}", "--", str(folder.relative_to(project)))


def refuse_other(folder: Path, params: dict[str, Any]) -> None:
    """A recorded run stands for these parameters; settings of what is not chosen may have changed.

    Raises:
        UserError: there is one, and it does not.
    """
    if not folder.is_dir():
        return
    chosen = {"sources": params["download"]["source"], "attacks": params["poison_dataset"]["attack"]["name"]}
    recorded, wanted = (
        {name: content.get(chosen[name]) if name in chosen else content for name, content in of.items()}
        for of in (run.whole(folder / "params.yaml"), params)
    )
    changed = run.changes(recorded, wanted)
    if changed:
        raise UserError(
            f"{folder} was recorded with other parameters ({', '.join(changed)}); remove it by `git rm -r` if it is "
            "outdated, or give the row another variant"
        )


def _clone(project: Path) -> Path:
    """A clone of the last commit, with what earlier runs left in it that git ignores."""
    clone = project / CLONE
    if not clone.is_dir():
        git(project, "clone", "--quiet", ".", str(CLONE))
    commit = git(project, "rev-parse", "HEAD")
    git(clone, "fetch", "--quiet", "origin")
    git(clone, "checkout", "--quiet", "--force", "--detach", commit)
    with Repo(str(project)) as repo:
        cache = repo.cache.local_cache_dir
    (clone / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    return clone


def _repro(clone: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    environment = {**inherited, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    status = subprocess.run(["dvc", "repro"], cwd=clone, env=environment, check=False).returncode  # noqa: S607
    if status:
        raise UserError(f"`dvc repro` failed in {clone}; mend what it says, and this command goes on with that run")


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
