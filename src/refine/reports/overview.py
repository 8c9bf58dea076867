"""All recorded runs at a glance: `metrics/runs.csv` for `dvc plots`, and its picture `docs/runs.svg`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
import yaml

from refine.core.files import new_file
from refine.reports import run

TABLE = Path("metrics/runs.csv")
PICTURE = Path("docs/runs.svg")
TEMPLATE = Path(".dvc/plots/runs.json")
VEGA_LITE = "6.4"
"""Version of the library that draws; it takes what is written for version 5, as DVC's own plots are."""

_FIGURES = ("benign_accuracy", "attack_success_rate", "robust_accuracy")


def table(project: Path) -> pd.DataFrame:
    """Benign, attack and robust figures, as shares, of both systems of each recorded run with an attack.

    Runs on a data set for choosing recipes (`cifar10_dev`) are trials and no results; they are left out.
    """
    rows: list[dict[str, Any]] = []
    recorded = run.read_all(project / run.HOME)
    results = {name: done for name, done in recorded.items() if not done.facts.name.dataset.endswith("_dev")}
    for run_name, done in results.items():
        for system, shown in run.SYSTEMS.items():
            figures = {name: done.figure(system, name) for name in _FIGURES}
            if None not in figures.values():
                rows.append({"run": run_name, **done.facts.name.model_dump(), "system": shown, **figures})
    return pd.DataFrame(rows)


def write(project: Path) -> None:
    """Writes the table and its picture."""
    rows = table(project)
    with new_file(project / TABLE) as partial:
        rows.to_csv(partial, index=False, lineterminator="\n")
    picture = vl_convert.vegalite_to_svg(_drawing(project, rows), vl_version=VEGA_LITE)
    with new_file(project / PICTURE) as partial:
        partial.write_text(picture + "\n", encoding="utf-8")


def _drawing(project: Path, rows: pd.DataFrame) -> str:
    """The plot as DVC fills its template."""
    wanted = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    (plot,) = (entry["All recorded runs"] for entry in wanted if "All recorded runs" in entry)
    filled = {'"<DVC_METRIC_DATA>"': rows.to_json(orient="records"), "<DVC_METRIC_TITLE>": plot["title"]}
    text = (project / TEMPLATE).read_text(encoding="utf-8")
    for anchor, value in filled.items():
        text = text.replace(anchor, value)
    return text
