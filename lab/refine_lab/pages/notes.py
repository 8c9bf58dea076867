"""The text under a table: the meaning of its figures, and why some are missing."""

from __future__ import annotations

from refine_lab.pages.cells import FLOOR_TRIGGERED, NONE
from refine_lab.runs.recorded import Run
from refine_lab.systems import BARE, label


def notes(runs: list[Run]) -> list[str]:
    """A paragraph about the figures of recorded runs; none without runs."""
    return [" ".join([_order(runs), *_floor(runs)])] if runs else []


def _order(runs: list[Run]) -> str:
    defenses = {run.defense for run in runs}
    after = label(*defenses) if len(defenses) == 1 else "the defense of the row"
    return f"Figures: {label(BARE)} → {after} [95 % interval of the latter, after Wilson]."


def _floor(runs: list[Run]) -> list[str]:
    attacked = [run for run in runs if run.record.name.attack != "none"]
    sentences = []
    sources = sorted({f"`{run.record.clean.run}`" for run in attacked if run.record.clean})
    if sources:
        sentences.append(
            f"*{FLOOR_TRIGGERED}*: triggered images that the clean classifier of {', '.join(sources)} answers so."
        )
    if any(run.record.clean is None for run in attacked):
        sentences.append(
            f"{NONE} in *{FLOOR_TRIGGERED}*: no run without attack of the same data, network and recipe is recorded."
        )
    return sentences
