"""What a list of runs says in few columns: what the defense costs, what it leaves, and what its encoder does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
from scipy import stats

from refine.defending.params import STAGE_OF_ITS_OWN
from refine_lab.lists.rows import Aims, Row, Rows
from refine_lab.pages.cells import NONE
from refine_lab.pages.comparison.frame import floor
from refine_lab.pages.tables import computed, markdown, missing
from refine_lab.projects import Stages
from refine_lab.runs.recorded import Run

_ALONE = "encoder"
"""The part of REFINE's defense that answers images by itself, see `refine.defenses.refine.defense.parts`."""


def headline(listed: Rows, project: Path) -> str:
    """A line for each attack and variant of a list, over the seeds that were recorded."""
    groups: dict[tuple[str, str, str], list[tuple[Row, Run]]] = {}
    runs = computed(listed, project)
    for row, run in runs:
        if run is not None:
            groups.setdefault((row.attack, row.variant, row.defense), []).append((row, run))
    if not groups:
        return "Not yet run."
    table = pd.DataFrame([_line(own[0][0], [run for _, run in own]) for own in groups.values()])
    notes = [_NOTE]
    if any(row.aims for row in listed.rows):
        notes.append(_OF_AIMS)
    else:
        table = table.drop(columns=_AIMS)
    if (table[_AGREEMENT] == NONE).all():
        table = table.drop(columns=_AGREEMENT)
    return f"{markdown(table)}\n\n{' '.join([*notes, *missing(runs)])}"


_NOTE = (
    f"Of several seeds the mean [95 % interval of the mean, by Student's t]. {NONE}: the recorded run does not tell, "
    "or there is no run without attack of the same data and network; that of another seed is taken where there is none "
    "of the same."
)


_AGREEMENT = "agreement"
_AIMS = "aims"
_OF_AIMS = (
    "*Aims*: at most so much of BA drop, ASR above floor, robust accuracy lost, and minutes of one core, to a tenth; "
    "which of them were missed."
)


def _line(row: Row, runs: list[Run]) -> dict[str, str]:
    of_refine = [run for run in runs if run.defense == STAGE_OF_ITS_OWN]
    return {
        "attack": f"`{row.attack}`",
        "variant": row.variant.replace("_", " "),
        "images": _same(f"{run.record.defender.images:,}" for run in of_refine if run.record.defender),
        "seeds": str(len(runs)),
        "BA before": _over_seeds(runs, _ba_before),
        "ASR before": _over_seeds(runs, _before),
        **_defended(of_refine),
        _AIMS: _held_against(row.aims, of_refine) if row.aims else NONE,
    }


def _defended(runs: list[Run]) -> dict[str, str]:
    return {
        "BA drop": _over_seeds(runs, _drop),
        "BA drop, encoder alone": _over_seeds(runs, _drop_alone),
        "ASR above floor": _over_seeds(runs, _above),
        "ASR above floor, encoder alone": _over_seeds(runs, _above_alone),
        "robust accuracy lost": _over_seeds(runs, _misread),
        _AGREEMENT: _over_seeds(runs, _agreement),
        "minutes": _over_seeds(runs, _minutes, scale=1),
        "on": _same(_machine(run) for run in runs),
    }


def _held_against(aims: Aims, runs: list[Run]) -> str:
    """The aims, and those of them that the mean over seeds misses."""
    figures = {
        "BA drop": (aims.ba_drop, _mean(runs, _drop, 100)),
        "ASR": (aims.above_floor, _mean(runs, _above, 100)),
        "robust accuracy": (aims.robust_loss, _mean(runs, _misread, 100)),
        "minutes": (aims.core_minutes, _mean(runs, _core_minutes, 1)),
    }
    missed = [name for name, (aim, value) in figures.items() if value is not None and round(value, 1) > aim]
    unknown = [name for name, (_, value) in figures.items() if value is None]
    verdicts = [f"**missed**: {', '.join(missed)}" if missed else "met"] if len(unknown) < len(figures) else []
    verdicts += [f"not known: {', '.join(unknown)}"] if unknown else []
    return f"{', '.join(f'{aim:g}' for aim, _ in figures.values())}: {'; '.join(verdicts)}"


def _ba_before(run: Run) -> float:
    return float(run.before["benign_accuracy"])


def _before(run: Run) -> float | None:
    return run.before.get("attack_success_rate")


def _drop(run: Run) -> float:
    return float(run.before["benign_accuracy"] - run.after["benign_accuracy"])


def _drop_alone(run: Run) -> float | None:
    alone = _alone(run)
    return None if alone is None else run.before["benign_accuracy"] - alone["benign_accuracy"]


def _above(run: Run) -> float | None:
    return _over_floor(run, run.after)


def _above_alone(run: Run) -> float | None:
    return _over_floor(run, _alone(run))


def _over_floor(run: Run, figures: dict[str, float] | None) -> float | None:
    if figures is None or run.record.clean is None:
        return None
    return figures["attack_success_rate"] - floor(run)[0]


def _misread(run: Run) -> float | None:
    clean = run.record.clean
    return None if clean is None else clean.no_defense.robust_accuracy - run.after["robust_accuracy"]


def _agreement(run: Run) -> float | None:
    found: float | None = run.diagnostics.get(run.defense, {}).get("agreement")
    return found


def _training(run: Run) -> dict[str, Any]:
    """How long the training of the defense took, and with what; empty where it came from the cache."""
    return run.record.runtime.get(Stages(run.defense).training, {})


def _minutes(run: Run) -> float | None:
    record = _training(run)
    return record["seconds"] / 60 if record else None


def _core_minutes(run: Run) -> float | None:
    minutes, threads = _minutes(run), _training(run).get("threads")
    return None if minutes is None or threads is None else minutes * threads


def _alone(run: Run) -> dict[str, float] | None:
    found: dict[str, float] | None = run.diagnostics.get("parts", {}).get(_ALONE)
    return found


def _machine(run: Run) -> str:
    record = _training(run)
    words = (record.get("device_name"), record.get("instructions"), f"{record.get('threads')} threads")
    return ", ".join(str(word) for word in words if word) if record else NONE


def _over_seeds(runs: list[Run], figure: Callable[[Run], float | None], scale: float = 100.0) -> str:
    """Mean of a figure with its interval, where all runs tell it."""
    values = _values(runs, figure, scale)
    if not values:
        return NONE
    mean = fmean(values)
    if len(values) == 1:
        return f"{mean:z.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stdev(values) / sqrt(len(values))
    return f"{mean:z.1f} [{mean - half:z.1f}, {mean + half:z.1f}]"


def _mean(runs: list[Run], figure: Callable[[Run], float | None], scale: float) -> float | None:
    """Of a figure, where all runs tell it."""
    values = _values(runs, figure, scale)
    return fmean(values) if values else None


def _values(runs: list[Run], figure: Callable[[Run], float | None], scale: float) -> list[float]:
    """A figure of each run; none unless all runs tell it."""
    values = [scale * value for value in map(figure, runs) if value is not None]
    return values if len(values) == len(runs) else []


def _same(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values)) or NONE
