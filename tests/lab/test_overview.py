"""All recorded runs at a glance: the table that `dvc plots` reads, and its picture."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from PIL import Image

from recorded_runs import name, run, write
from refine_lab.pages import overview
from refine_lab.runs.recorded import HOME
from support import PROJECT


def test_the_table_of_runs_is_that_of_the_recorded_runs() -> None:
    made = overview.table(PROJECT).to_csv(index=False, lineterminator="\n")
    assert made == (PROJECT / overview.TABLE).read_text(encoding="utf-8"), "type `refine fill README.md`"


def test_each_run_with_an_attack_stands_there_twice(tmp_path: Path) -> None:
    for of in (name(), name(defense="shrinkpad"), name("none"), name(dataset="cifar10_dev")):
        write(tmp_path / HOME, run(of))
    rows = overview.table(tmp_path)
    assert list(rows["run"]) == [str(name())] * 2 + [str(name(defense="shrinkpad"))] * 2
    assert list(rows["system"]) == ["no defense", "REFINE", "no defense", "ShrinkPad"]
    assert list(rows["defense"]) == ["refine"] * 2 + ["shrinkpad"] * 2
    assert list(rows["attack_success_rate"]) == [1.0, 0.004] * 2


def test_without_runs_the_table_is_empty(tmp_path: Path) -> None:
    assert len(overview.table(tmp_path)) == 0


def test_the_picture_of_the_runs_shows_both_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("lab/plots", "docs", "metrics"):
        (tmp_path / folder).mkdir(parents=True)
    for file in (overview.TEMPLATE, Path("dvc.yaml")):
        shutil.copy(PROJECT / file, tmp_path / file)
    rows = {"run": "a", "dataset": "d", "system": ["no defense", "REFINE"]}
    rows |= {"preset": "p", "attack": "t", "variant": "default", "seed": 1}
    figures: dict[str, Any] = {"benign_accuracy": [0.9, 0.8], "attack_success_rate": [1.0, 0.0]}
    figures["robust_accuracy"] = [0.1, 0.7]
    monkeypatch.setattr(overview, "table", lambda _project: pd.DataFrame(rows | figures))
    overview.write(tmp_path)
    picture = vl_convert.svg_to_png((tmp_path / overview.PICTURE).read_text(encoding="utf-8"))
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)[:, :-120]  # without the legend
    third = pixels.shape[1] // 3
    attack = pixels[:, third : 2 * third]  # the panel in the middle
    red, green = (attack[..., 0] - attack[..., 1] > 60), (attack[..., 1] - attack[..., 0] > 60)
    assert np.argwhere(red)[:, 1].mean() > np.argwhere(green)[:, 1].mean() + third / 2


def test_each_data_set_has_panels_with_axes_of_its_own(tmp_path: Path) -> None:
    """Runs of one data set far from those of another take no room from them."""
    runs = pd.read_csv(PROJECT / overview.TABLE)
    point, positions = re.compile(r'run: (mnist5k[^;]*);[^>]* transform="translate\(([^)]*)\)'), []
    for others in (0.9, 0.1):
        moved = runs.assign(benign_accuracy=runs["benign_accuracy"].where(runs["dataset"] == "mnist5k", others))
        drawing = overview._drawing(PROJECT, moved)
        positions.append(sorted(point.findall(vl_convert.vegalite_to_svg(drawing, vl_version=overview.VEGA_LITE))))
    assert positions[0] == positions[1]
    assert len(positions[0]) == 3 * (runs["dataset"] == "mnist5k").sum()
