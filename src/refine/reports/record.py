"""Records the finished run of this checkout.

    python -m refine.reports.record PRESET [--variant WORD]

It is refused where `dvc status` has something to say: what is recorded has to be what the parameters say.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dvc.repo import Repo

from refine.core.errors import UserError, command
from refine.core.files import read_json, sha256_of
from refine.reports import run
from refine.reports.run import Facts

POISONED = Path("data/poisoned/attack/attack.json")
_RECORDS = Path("metrics/runtime")
CODE = ("src", "stages", "dvc.yaml", "presets")


def preset_file(name: str) -> Path:
    """Where a preset lies, relative to the project."""
    return Path("presets") / f"{name}.yaml"


def record(
    project: Path, home: Path, preset: str, variant: str, machine: Mapping[str, int | str] = MappingProxyType({})
) -> Path:
    """Records the run that is finished in a project.

    Args:
        project: its root.
        home: takes a folder for the run.
        preset: a file of `presets` that the run's parameters come from.
        variant: one word for what is special about it.
        machine: settings of the machine that were asked for.

    Returns:
        The run's folder.

    Raises:
        UserError: something is out of date, not committed or missing.
    """
    from refine.reports import clean  # loads torch, which lists of runs and pages do without

    outdated = stale(project)
    if outdated:
        raise UserError(f"{', '.join(outdated)} out of date; run `dvc repro` before a run is recorded")
    params = run.whole(project / "params.yaml")
    shipped = project / preset_file(preset)
    if not shipped.is_file():
        known = ", ".join(sorted(path.stem for path in shipped.parent.glob("*.yaml")))
        raise UserError(f"{shipped} is no preset, choose from {known}")
    name, outputs = run.name_of(params, preset, variant), clean.outputs(project)
    facts = Facts(
        name=name,
        changes=run.changes(run.whole(shipped), params),
        machine=dict(machine),
        commit=_committed(project),
        **_poisoned(project),
        runtime=_runtime(project),
        outputs=outputs,
        clean=None if name.attack == "none" else clean.measured(project, home, outputs),
    )
    return run.write(project, home, facts)


def stale(project: Path) -> list[str]:
    """Stages of a project that are not up to date."""
    with Repo(str(project)) as repo:
        return sorted(repo.status())


def git(project: Path, *words: str) -> str:
    """What a git command prints there.

    Raises:
        UserError: it fails.
    """
    result = subprocess.run(  # noqa: S603
        ["git", *words],  # noqa: S607
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise UserError(f"`git {' '.join(words)}` failed in {project}: {result.stderr}")
    return result.stdout.strip()


def _committed(project: Path) -> str:
    if git(project, "status", "--porcelain", "--", *CODE):
        raise UserError(f"{', '.join(CODE)} hold changes that are not committed; commit them, so that a run has a code")
    return git(project, "rev-parse", "HEAD")


def _poisoned(project: Path) -> dict[str, Any]:
    told = read_json(project / POISONED, "run `dvc repro`")
    rates = {name: told.get(name) for name in ("rate_of_dataset", "rate_of_classes")}
    return {"poisoned": len(told["poisoned"]), "cover": len(told["cover"]), **rates}


def _runtime(project: Path) -> dict[str, dict[str, Any]]:
    """Records of the stages whose outputs are still there; others came from the cache, computed who knows where."""
    kept = {}
    for path in sorted((project / _RECORDS).glob("*.json")):
        told = read_json(path, "run `dvc repro -f`")
        result = told.pop("result", None)
        if result and (project / result["path"]).is_file() and sha256_of(project / result["path"]) == result["sha256"]:
            stage = told.pop("stage")
            del told["started_unix"]
            kept[stage] = told
    return kept


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m refine.reports.record", description="Records a finished run.")
    parser.add_argument("preset", help="that params.yaml was made from, a file of presets/")
    parser.add_argument("--variant", default="default", help="one word for what is special (default: %(default)s)")
    given = parser.parse_args(arguments)
    folder = record(Path(), run.HOME, given.preset, given.variant)
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    command(main)
