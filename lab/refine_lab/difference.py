"""What a run changed in the checkout: its figures against the committed ones, and against the known spread.

Other processors and other numbers of threads add up in another order, so that a first run elsewhere changes `dvc.lock`
and the metrics although nothing was edited. The spread comes from the recorded runs of the committed experiment, which
differ from it in seed, threads or processor alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from refine.core.errors import UserError
from refine.defending.params import STAGE_OF_ITS_OWN
from refine_lab.projects import METRICS, PARAMS, git
from refine_lab.runs.parameters import read_params
from refine_lab.runs.recorded import HOME, Run, of_experiment, read_all
from refine_lab.systems import BARE, label

_WRITTEN = ("dvc.lock", f":(glob){METRICS}/*.json", f"{METRICS}/diagnostics")
_SHOWN = {"BA": "benign_accuracy", "ASR": "attack_success_rate"}
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Spread:
    """One figure over recorded runs of one experiment, shares of images.

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
    except UserError:  # no repository, or one without a commit: there is nothing to compare with
        return ""
    if not changed:
        return ""
    with Repo(str(project)) as repo:
        if repo.params.diff():
            return f"{PARAMS} is not as committed; `dvc metrics diff` compares the figures.\n"
        compared = repo.metrics.diff(all=True)
    damaged = compared.get("errors", {}).get("workspace", {})
    if damaged:
        raise UserError(f"{', '.join(damaged)} cannot be compared; run `dvc repro`")
    return "\n".join([*_lines(compared.get("diff", {}), project), *_remedy(changed)]) + "\n"


def spread(runs: list[Run], system: str, figure: str) -> Spread | None:
    """The spread of a figure over recorded runs, None where there are not two of them."""
    values = [value for run in runs if (value := run.figure(system, figure)) is not None]
    return Spread(len(values), min(values), max(values)) if len(values) > 1 else None


def _lines(compared: dict[str, dict[str, Any]], project: Path) -> list[str]:
    if all(value["old"] == value["new"] for metrics in compared.values() for value in metrics.values()):
        return ["All figures are as committed."]
    lines = ["Against the committed figures (other processors and threads give others, as other seeds do):"]
    recorded, params = read_all(project / HOME).values(), read_params(project / PARAMS)
    systems = {Path(path).stem: metrics for path, metrics in compared.items()}  # which DVC gives in any order
    for system, metrics in sorted(systems.items(), key=lambda item: (item[0] != BARE, item[0])):
        same = of_experiment(recorded, params, STAGE_OF_ITS_OWN if system == BARE else system)
        for short, figure in _SHOWN.items():
            old, new = (metrics.get(figure, {}).get(side) for side in ("old", "new"))
            if old is not None and new is not None:
                moved = f"{_percent(old)} -> {_percent(new)} ({100 * (new - old):+.2f})"
                lines.append(f"  {short}, {label(system)}: {moved}{_place(new, spread(same, system, figure))}")
    return lines


def _place(value: float, known: Spread | None) -> str:
    if known is None:
        return ""
    where = "within" if known.holds(value) else "OUTSIDE"
    return f", {where} {_percent(known.least)} to {_percent(known.most)} of {known.runs} recorded runs"


def _remedy(changed: list[str]) -> list[str]:
    return [
        f"Changed in this checkout: {', '.join(changed)}.",
        "Keep them by `git commit -a`, or have the committed ones back by `git checkout dvc.lock metrics`; "
        "until either, `git status` names them.",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
