"""A table of measurements: a line for each run of a list that was recorded, with everything that it is compared by."""

from __future__ import annotations

import json
from hashlib import sha256
from math import hypot, nan
from pathlib import Path
from typing import Any

import pandas as pd

from refine.evaluation.metrics import interval
from refine_lab.lists.plan import plan
from refine_lab.lists.rows import Rows
from refine_lab.projects import CLASSIFIER, SPLITTING, Stages
from refine_lab.runs.parameters import attack_of
from refine_lab.runs.recorded import HOME, Run, read_all
from refine_lab.systems import label, regime

TAKES = 0.8
"""Attack success rate without defense from which an attack counts in a ranking."""

KEYS = ("attack", "system")
"""What a measurement is of; runs of several seeds share it."""


def measurements(listed: Rows, project: Path) -> pd.DataFrame:
    """A line for each recorded run of a list with an attack; shares from 0 to 1.

    Columns, besides those of the run's name and what the defender was given:

    `system`: the defense as tables call it, with its variant.
    `ba_before`, `ba`, `ba_drop`: benign accuracy without and with the defense, and their difference.
    `asr_before`, `asr`: attack success rate without and with it.
    `floor`: what the attack success rate is held against, and `floor_of` whose answers it is: to the triggered images,
        those of the same defense of a clean classifier (`defended`) or of the clean classifier (`classifier`),
        whichever is lower, as a defense that itself leads images to the target must not get a higher floor for that;
        where no clean run is recorded, the defense's own to the images without their trigger (`untriggered`).
    `above_floor`: their difference, with `above_floor_low` and `above_floor_high`, its 95 % interval.
    `robust`, `robust_clean`: robust accuracy, and the higher one of the same two.
    `der`: defense effectiveness rating.
    `retuned`, `retuned_transform`: by how much more often the attack succeeds than on a clean model with the same
        defense, after both were retuned (see `refine.retuning`): everything in them, or the transform of a defense
        alone; unknown where no such model was recorded. `asr_retuned` and `ba_retuned`, with the same endings: attack
        success rate and benign accuracy then. A model that no longer tells images apart has no low success rate.
    `images`, `labels`, `changes_classifier`: how many images the defender had, whether with labels, and whether weights
        of the classifier differ afterwards.
    `classifier`: DVC's hash of the attacked classifier; runs recorded by an early version do not tell it.
    `settings`: a hash of what the classifier was trained by: data, attack and recipe.
    `minutes`: of the training of the defense, where it was computed for this run, with the split that it is given.
    """
    recorded = read_all(project / HOME)
    found = [(row.variant, recorded.get(str(name))) for row, name, _ in plan(listed, project)]
    lines = [_line(variant, run) for variant, run in found if run is not None and "attack_success_rate" in run.before]
    return pd.DataFrame(lines)


def _line(variant: str, run: Run) -> dict[str, Any]:
    before, after = run.before, run.after
    lowest, robust_clean, floor_of = floor(run)
    above = after["attack_success_rate"] - lowest
    count = run.diagnostics["images"]["triggered"]
    low, high = difference_interval(after["attack_success_rate"], lowest, count, count)
    return {
        **run.record.name.model_dump(),
        "system": label(run.defense) + ("" if variant == "default" else f", {variant.replace('_', ' ')}"),
        **_defender(run),
        "classifier": run.output(CLASSIFIER),
        "settings": _settings(run),
        "minutes": _minutes(run),
        "ba_before": before["benign_accuracy"],
        "ba": after["benign_accuracy"],
        "ba_drop": before["benign_accuracy"] - after["benign_accuracy"],
        "asr_before": before["attack_success_rate"],
        "asr": after["attack_success_rate"],
        "floor": lowest,
        "floor_of": floor_of,
        "above_floor": above,
        "above_floor_low": low,
        "above_floor_high": high,
        "robust": after["robust_accuracy"],
        "robust_clean": robust_clean,
        "der": after["der"],
        **_retuned(run, "all", ""),
        **_retuned(run, "transform", "_transform"),
    }


def _defender(run: Run) -> dict[str, Any]:
    """What the defender had; runs recorded by an early version do not tell all of it."""
    told = run.record.defender
    if told is None:
        return {"regime": regime(run.defense), "images": nan, "labels": None, "changes_classifier": None}
    return told.model_dump()


def _settings(run: Run) -> str:
    attack = run.params["attacks"].get(attack_of(run.params))
    content = [run.params[name] for name in ("download", "poison_dataset", "train_backdoor")]
    return sha256(json.dumps([*content, attack], sort_keys=True).encode()).hexdigest()[:8]


def _minutes(run: Run) -> float:
    runtime = run.record.runtime
    if Stages(run.defense).training not in runtime:
        return nan
    own = [stage for stage in runtime if stage == Stages(run.defense).training or stage.startswith(SPLITTING)]
    return float(sum(runtime[stage]["seconds"] for stage in own)) / 60


def _retuned(run: Run, variant: str, ending: str) -> dict[str, float]:
    found = run.retuned(run.defense, variant)
    controlled = run.record.retuning is not None and run.record.retuning.clean_defended
    above = found.asr_over_clean if found and controlled else None
    return {
        f"retuned{ending}": nan if above is None else above,
        f"asr_retuned{ending}": found.attacked.mean.attack_success_rate if found else nan,
        f"ba_retuned{ending}": found.attacked.mean.benign_accuracy if found else nan,
    }


def floor(run: Run) -> tuple[float, float, str]:
    """Floor of the attack success rate, robust accuracy beside it, and whose they are."""
    clean = run.record.clean
    if clean is None:
        return run.after["asr_floor_clean"], run.after["benign_accuracy"], "untriggered"
    of = {"classifier": clean.no_defense} | ({"defended": clean.defended} if clean.defended else {})
    lowest, floor_of = min((answers.asr_floor_triggered, name) for name, answers in of.items())
    return lowest, max(answers.robust_accuracy for answers in of.values()), floor_of


def difference_interval(one: float, other: float, count: int, other_count: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares, of so many images each (Newcombe 1998, method 10).

    The shares count as independent. They are of the same images, so that the interval is rather too wide.
    """
    (low, high), (other_low, other_high) = interval(one, count), interval(other, other_count)
    return one - other - hypot(one - low, other_high - other), one - other + hypot(high - one, other - other_low)
