"""What a run changed in the checkout: its figures against the committed ones, and against the known spread.

    python -m refine.reports.difference

Other processors and other numbers of threads add up in another order, so that a first run elsewhere changes `dvc.lock`
and the metrics although nothing was edited. The spread comes from the recorded runs of the committed experiment, which
differ from it in seed, threads or processor alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from refine.core.errors import UserError, command
from refine.core.files import read_json
from refine.reports import run
from refine.reports.record import git

METRICS = Path("metrics/evaluate.json")
PARAMS = Path("params.yaml")
_WRITTEN = ("dvc.lock", "metrics/evaluate.json")
_SHOWN = {
    f"{short}, {shown}": (system, name)
    for system, shown in run.SYSTEMS.items()
    for short, name in (("BA", "benign_accuracy"), ("ASR", "attack_success_rate"))
}
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Known:
    """What recorded runs of one experiment gave for one figure, shares of images.

    Attributes:
        runs: how many there are.
        least: of them.
        most: of them.
    """

    runs: int
    least: float
    most: float

    def holds(self, value: float) -> bool:
        """Whether a figure lies within."""
        return self.least - _ROUNDING <= value <= self.most + _ROUNDING


def report(project: Path) -> str:
    """The lines that a finished run ends with; empty where nothing differs from what is committed.

    Args:
        project: a checkout with a finished run.

    Raises:
        UserError: the metrics or a recorded run cannot be read.
    """
    try:
        changed = git(project, "diff", "--name-only", "HEAD", "--", *_WRITTEN).splitlines()
        params, figures = (git(project, "show", f"HEAD:{path}") for path in (PARAMS.as_posix(), METRICS.as_posix()))
    except UserError:  # no repository, or one without a commit of them: there is nothing to compare with
        return ""
    if not changed:
        return ""
    if yaml.safe_load(params) != yaml.safe_load((project / PARAMS).read_text(encoding="utf-8")):
        return f"{PARAMS} is not as committed; `dvc metrics diff` compares the figures.\n"
    lines = _lines(json.loads(figures), read_json(project / METRICS, "run `dvc repro`"), project)
    return "\n".join([*lines, *_remedy(changed)]) + "\n"


def _lines(committed: dict[str, Any], found: dict[str, Any], project: Path) -> list[str]:
    same = run.of_experiment(run.read_all(project / run.HOME), run.whole(project / PARAMS))
    if committed == found:
        return ["All figures are as committed."]
    lines = ["Against the committed figures (other processors and threads give others, as other seeds do):"]
    for shown, (system, name) in _SHOWN.items():
        before, after = (figures[system].get(name) for figures in (committed, found))
        if before is not None and after is not None:
            moved = f"{_percent(before)} -> {_percent(after)} ({100 * (after - before):+.2f})"
            lines.append(f"  {shown}: {moved}{_place(after, known(same, system, name))}")
    return lines


def known(same: list[run.Run], system: str, name: str) -> Known | None:
    """The spread of a figure over recorded runs, None where there are not two of them."""
    values = [value for each in same if (value := each.figures[system].get(name)) is not None]
    return Known(len(values), min(values), max(values)) if len(values) > 1 else None


def _place(value: float, spread: Known | None) -> str:
    if spread is None:
        return ""
    where = "within" if spread.holds(value) else "OUTSIDE"
    return f", {where} {_percent(spread.least)} to {_percent(spread.most)} of {spread.runs} recorded runs"


def _remedy(changed: list[str]) -> list[str]:
    return [
        f"Changed in this checkout: {', '.join(changed)}.",
        "Keep them by `git commit -a`, or have the committed ones back by `git checkout dvc.lock metrics`; "
        "until either, `git status` names them.",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    argparse.ArgumentParser(
        prog="python -m refine.reports.difference",
        description="Tells how far the finished run is from the committed one, and what it changed.",
    ).parse_args(arguments)
    sys.stdout.write(report(Path()))


if __name__ == "__main__":
    command(main)
