"""All recorded runs at a glance: `metrics/runs.csv` for `dvc plots`, and its picture `docs/runs.svg`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
import yaml

from refine.core.files import new_file
from refine_lab.runs.name import Name
from refine_lab.runs.recorded import HOME, read_all
from refine_lab.systems import label

TABLE = Path("metrics/runs.csv")
PICTURE = Path("docs/runs.svg")
TEMPLATE = Path("lab/plots/runs.json")
VEGA_LITE = "6.4"
"""Version of the library that draws; it takes what is written for version 5, as DVC's own plots are."""

_FIGURES = ("benign_accuracy", "attack_success_rate", "robust_accuracy")


def table(project: Path) -> pd.DataFrame:
    """Benign, attack and robust figures, as shares, of both systems of each recorded run with an attack.

    Runs on a data set for choosing recipes (`cifar10_dev`) are trials and no results; they are left out.
    """
    rows: list[dict[str, Any]] = []
    for name, run in read_all(project / HOME).items():
        for system in run.figures:
            figures = {figure: run.figure(system, figure) for figure in _FIGURES}
            rows.append({"run": name, **run.record.name.model_dump(), "system": label(system), **figures})
    runs = pd.DataFrame(rows, columns=["run", *Name.model_fields, "system", *_FIGURES])
    return runs[~runs["dataset"].str.endswith("_dev")].dropna()


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
