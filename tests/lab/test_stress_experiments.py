"""The stress test on finished experiments: one row for each plant, beside the true trigger; and the plot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import stressed
import tiny
from refine.core.errors import UserError
from refine_lab.stress.experiments import Settings, compare
from refine_lab.stress.picture import draw
from support import TINY_PARAMS, write_params


def _settings(noted: list[Path] | None = None) -> Settings:
    return Settings(100, 1, stressed.params(), lambda *_: stressed.defender(noted), tiny.CPU)


def _experiment(folder: Path, attack: str) -> Path:
    clean = tiny.raw(folder / "data/raw", images=120)
    tiny.poisoned(folder / "data/poisoned", attack, tiny.attack(attack, clean[0]), clean)
    stressed.model(folder / "models/backdoor")
    write_params(folder, TINY_PARAMS)
    return folder


def test_plants_stand_beside_the_true_trigger(tmp_path: Path) -> None:
    places = [_experiment(tmp_path / name, name) for name in ("badnets", "none")]
    noted: list[Path] = []
    table = compare(places, _settings(noted), tmp_path / "out")
    assert table["experiment"].tolist() == ["badnets", "none"]
    assert table["images"].tolist() == [100, 100]
    assert len(noted) == 2 + int(table["took"].sum())
    assert isinstance(table["true_asr_after"][0], float)
    assert table["true_asr_after"][1] == ""
    before = (tmp_path / "out/stress.csv").read_bytes()
    again = compare(places, _settings(noted := []), tmp_path / "out")
    assert noted == []
    assert (tmp_path / "out/stress.csv").read_bytes() == before
    draw(again, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert len(picture.convert("L").getcolors() or []) > 10


def test_two_experiments_of_one_name_are_refused(tmp_path: Path) -> None:
    one = _experiment(tmp_path / "a/badnets", "badnets")
    shutil.copytree(one, tmp_path / "b/badnets")
    with pytest.raises(UserError, match="the same folder name"):
        compare([one, tmp_path / "b/badnets"], _settings(), tmp_path / "out")


def test_the_plot_shows_what_took(tmp_path: Path) -> None:
    row = {"experiment": "badnets", "plant": "patch", "took": True, "worst": True, "true_asr_after": 0.02}
    rates = {"asr_after": 0.1, "asr_after_low": 0.05, "asr_after_high": 0.2}
    draw(pd.DataFrame([{**row, **rates}]), tmp_path / "one.png")
    draw(pd.DataFrame([{**row, **rates, "took": False}]), tmp_path / "none.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "none.png").read_bytes()
