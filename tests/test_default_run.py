"""The finished default run of this checkout: its bars, its outputs, and what the README says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from refine.shards.reading.reader import read_split
from support import PROJECT, run

SYSTEMS = ("no_defense", "refine")
NAMED = {
    "BA": "benign_accuracy",
    "ASR": "attack_success_rate",
    "ASR floor": "asr_floor_clean",
    "robust accuracy": "robust_accuracy",
}
"""What the README calls the shares."""


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """`no_defense.json`, `refine.json` and `diagnostics/refine.json` of the run that this checkout just made."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    if (params["download"]["source"], params["poison_dataset"]["attack"]["name"]) != ("mnist5k", "badnets"):
        pytest.skip("params.yaml holds another experiment than the default")
    if not (PROJECT / "metrics/plots/refine").is_dir():
        pytest.skip("needs the finished default run: type ./run first")
    return {
        name: json.loads((PROJECT / f"metrics/{name}.json").read_text(encoding="utf-8"))
        for name in (*SYSTEMS, "diagnostics/refine")
    }


def test_the_run_is_up_to_date(figures: dict[str, Any]) -> None:
    assert "up to date" in run(PROJECT, "dvc", "status").stdout


def test_the_attack_works_and_the_defense_holds(figures: dict[str, Any]) -> None:
    before, after = figures["no_defense"], figures["refine"]
    assert before["benign_accuracy"] >= 0.965
    assert before["attack_success_rate"] >= 0.99
    assert after["benign_accuracy"] >= 0.96
    assert after["attack_success_rate"] <= 0.01


def test_every_test_image_was_counted(figures: dict[str, Any]) -> None:
    assert figures["diagnostics/refine"]["images"] == {"benign": 1000, "triggered": 900}


def test_figures_are_shares_with_six_decimals_in_their_intervals(figures: dict[str, Any]) -> None:
    for system in SYSTEMS:
        content = dict(figures[system])
        intervals = content.pop("interval_95")
        assert set(content) == {*NAMED.values(), "der"}
        assert set(intervals) == set(NAMED.values())
        for name, value in content.items():
            low, high = intervals.get(name, (0, 1))
            assert 0 <= low <= value <= high <= 1
            assert all(round(each, 6) == each for each in (value, low, high))


def test_the_attack_is_told_to_have_succeeded(figures: dict[str, Any]) -> None:
    assert figures["diagnostics/refine"]["attack_succeeded"] is True
    assert set(figures["diagnostics/refine"]["wasserstein"]) == {"penultimate", "softmax"}


def test_shards_of_the_run_are_whole(figures: dict[str, Any]) -> None:
    for folder in ("raw/train", "raw/test", "poisoned/train", "poisoned/test", "poisoned/defender"):
        assert len(read_split(PROJECT / "data" / folder).images)


def test_pictures_show_something(figures: dict[str, Any]) -> None:
    for picture in ("data/poisoned/preview.png", "metrics/plots/refine/gallery.png"):
        with Image.open(PROJECT / picture) as image:
            assert np.asarray(image).std() > 10


def test_histories_have_a_row_for_each_epoch_and_nothing_with_a_clock(figures: dict[str, Any]) -> None:
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    for stage, folder in (("train_backdoor", "backdoor"), ("train_refine", "refine")):
        lines = (PROJECT / f"models/{folder}/history.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1 + params[stage]["recipe"]["epochs"]
        assert not re.search(r"time|second|date", lines[0])


def test_the_readme_shows_the_committed_figures() -> None:
    if run(PROJECT, "git", "rev-parse", "HEAD").returncode != 0:
        pytest.skip("not a git checkout")
    figures = [json.loads(run(PROJECT, "git", "show", f"HEAD:metrics/{name}.json").stdout) for name in SYSTEMS]
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for label, name in NAMED.items():
        (row,) = (
            line
            for line in readme.splitlines()
            if line.startswith("|") and re.search(rf"{label}\b.*:", line) and (label != "ASR" or "floor" not in line)
        )
        shown = [f"{100 * system[name]:.2f} %" for system in figures]
        assert [cell.strip() for cell in row.split("|")[2:4]] == shown
    (row,) = (line for line in readme.splitlines() if line.startswith("|") and "(DER):" in line)
    assert [cell.strip() for cell in row.split("|")[2:4]] == [f"{system['der']:.4f}" for system in figures]


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)
    ci = (PROJECT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert [block.strip() for block in blocks[:2]] == ["./run", "./run test"]
    assert [line for line in ci if line.startswith("./")] == ["./run", "./run test"]


def test_constraints_name_versions_and_no_address() -> None:
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if not line.startswith("#"))


def test_no_file_of_the_project_speaks_of_this_machine() -> None:
    home = str(Path.home())
    names = run(PROJECT, "git", "ls-files").stdout.split()
    texts = (PROJECT / name for name in names if (PROJECT / name).is_file())
    assert [str(path) for path in texts if home in path.read_text(encoding="utf-8", errors="ignore")] == []
