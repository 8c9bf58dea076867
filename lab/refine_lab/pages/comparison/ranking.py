"""The order of defenses: by their worst attack, and by the mean over attacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pandas as pd

from refine_lab.pages.comparison.frame import TAKES


def ranking(measured: pd.DataFrame) -> pd.DataFrame:
    """A line for each system, the best one first.

    Only attacks that succeed on at least `TAKES` of the images without defense count, as a defense cannot show anything
    against others. The order is that of the worst attack success rate above its floor, where below it counts as at it,
    then that of the mean DER. A system that was not measured against every such attack comes after those that were, by
    the number that it lacks.

    Args:
        measured: see `frame.measurements`; several seeds of a measurement are averaged first.

    Returns:
        Columns `system`, `attacks` (how many count for it), `worst` (which of them is the worst), `above_floor` with
        `above_floor_low` and `above_floor_high`, `der` (mean), `ba_drop` (largest), `robust_loss` (largest), `retuned`
        and `retuned_transform` (largest, with the least benign accuracy then), `asr_retuned` with the same ending
        (largest), what the defender had, and `minutes` (median).
    """
    counting = averaged(measured[measured["asr_before"] >= TAKES])
    table = pd.DataFrame(_lines(counting))
    if table.empty:
        return table
    order = table.assign(
        lacks=counting["attack"].nunique() - table["attacks"], worst_above=table["above_floor"].clip(lower=0)
    ).sort_values(["lacks", "worst_above", "der"], ascending=[True, True, False], kind="stable")
    return order[table.columns].reset_index(drop=True)


def averaged(measured: pd.DataFrame) -> pd.DataFrame:
    """One line for each attack and system: the mean over seeds, with the number of them in `seeds`."""
    grouped = measured.groupby(["attack", "system"], sort=False)
    means = grouped.mean(numeric_only=True)
    others = grouped[[name for name in measured if name not in means and name not in means.index.names]].first()
    return means.join(others).join(grouped.size().rename("seeds")).reset_index()


def _lines(counting: pd.DataFrame) -> Iterator[dict[str, object]]:
    for system, own in counting.groupby("system", sort=False):
        worst = max(records(own), key=lambda line: float(line["above_floor"]))
        yield {
            "system": system,
            "attacks": len(own),
            "worst": worst["attack"],
            **{name: worst[name] for name in ("above_floor", "above_floor_low", "above_floor_high")},
            "der": own["der"].mean(),
            "ba_drop": own["ba_drop"].max(),
            "robust_loss": (own["robust_clean"] - own["robust"]).max(),
            **{name: _largest_controlled(own, name) for name in ("retuned", "retuned_transform")},
            **{name: own[name].max() for name in ("asr_retuned", "asr_retuned_transform")},
            **{name: own[name].min() for name in ("ba_retuned", "ba_retuned_transform")},
            **{name: worst[name] for name in ("regime", "images", "labels", "changes_classifier")},
            "minutes": own["minutes"].median(),
        }


def _largest_controlled(own: pd.DataFrame, name: str) -> float:
    """Unknown where one of those that were retuned has no control, as that may be the largest."""
    return float(own[name][own[f"asr_{name}"].notna()].max(skipna=False))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of a table, by the names of its columns."""
    return cast(list[dict[str, Any]], table.to_dict("records"))
