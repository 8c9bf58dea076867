"""What a list of runs says in few columns: what the defense costs, what it leaves, and what its encoder does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
from scipy import stats

from refine.defending.params import STAGE_OF_ITS_OWN
from refine_lab.lists.rows import Rows
from refine_lab.pages.cells import NONE
from refine_lab.pages.comparison.frame import floor
from refine_lab.pages.tables import computed, markdown, missing
from refine_lab.projects import Stages
from refine_lab.runs.recorded import Run

_ALONE = "encoder"
"""The part of REFINE's defense that answers images by itself, see `refine.defenses.refine.defense.parts`."""


def headline(listed: Rows, project: Path) -> str:
    """A line for each attack and variant of a list, over the seeds that were recorded."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    runs = computed(listed, project)
    for row, run in runs:
        if run is not None:
            groups.setdefault((row.attack, row.variant, row.defense), []).append(run)
    if not groups:
        return "Not yet run."
    table = markdown(pd.DataFrame([_line(attack, variant, own) for (attack, variant, _), own in groups.items()]))
    return f"{table}\n\n{' '.join([_NOTE, *missing(runs)])}"


_NOTE = (
    "Points and minutes; of several seeds the mean [95 % interval of the mean, by Student's t]. *Before*: "
    "without defense, the only figures of rows that have another defense than REFINE; where the "
    "attack does not succeed, there is nothing to defend. *BA drop*: from the "
    "classifier without defense. *Encoder alone*: the encoder of REFINE's transform under the head that it "
    "learned with, as a classifier of its own, which tells what drawing and mapping add. *Floor*: triggered "
    "images that a clean classifier assigns to the attacker's class, without defense or with REFINE, whichever "
    "are fewer. *Robust accuracy lost*: how many more of the triggered images are misread than by the clean "
    f"classifier without defense. {NONE}: the recorded run does not tell, or there is no run without attack of the "
    "same data and network; that of another seed is taken where there is none of the same."
)


def _line(attack: str, variant: str, runs: list[Run]) -> dict[str, str]:
    of_refine = [run for run in runs if run.defense == STAGE_OF_ITS_OWN]
    return {
        "attack": f"`{attack}`",
        "variant": variant.replace("_", " "),
        "images": _same(f"{run.record.defender.images:,}" for run in of_refine if run.record.defender),
        "seeds": str(len(runs)),
        "BA before": _over_seeds(runs, _ba_before),
        "ASR before": _over_seeds(runs, _before),
        **_defended(of_refine),
    }


def _defended(runs: list[Run]) -> dict[str, str]:
    return {
        "BA drop": _over_seeds(runs, _drop),
        "BA drop, encoder alone": _over_seeds(runs, _drop_alone),
        "ASR above floor": _over_seeds(runs, _above),
        "ASR above floor, encoder alone": _over_seeds(runs, _above_alone),
        "robust accuracy lost": _over_seeds(runs, _misread),
        "minutes": _over_seeds(runs, _minutes, scale=1),
        "on": _same(_machine(run) for run in runs),
    }


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


def _minutes(run: Run) -> float | None:
    record = run.record.runtime.get(Stages(run.defense).training)
    return record["seconds"] / 60 if record else None


def _alone(run: Run) -> dict[str, float] | None:
    found: dict[str, float] | None = run.diagnostics.get("parts", {}).get(_ALONE)
    return found


def _machine(run: Run) -> str:
    record = run.record.runtime.get(Stages(run.defense).training, {})
    words = (record.get("device_name"), record.get("instructions"), f"{record.get('threads')} threads")
    return ", ".join(str(word) for word in words if word) if record else NONE


def _over_seeds(runs: list[Run], figure: Callable[[Run], float | None], scale: float = 100.0) -> str:
    """Mean of a figure with its interval, where all runs tell it."""
    values = [value for value in map(figure, runs) if value is not None]
    if not values or len(values) < len(runs):
        return NONE
    mean = f"{scale * fmean(values):z.1f}"
    if len(values) == 1:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * stdev(values) / sqrt(len(values))
    return f"{mean} [{scale * (fmean(values) - half):z.1f}, {scale * (fmean(values) + half):z.1f}]"


def _same(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values)) or NONE
