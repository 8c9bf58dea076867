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


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """`metrics/evaluate.json` of the run that this checkout just made."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    if (params["download"]["source"], params["poison_dataset"]["attack"]["name"]) != ("mnist5k", "badnets"):
        pytest.skip("params.yaml holds another experiment than the default")
    if not (PROJECT / "metrics/plots").is_dir():
        pytest.skip("needs the finished default run: type ./run first")
    return dict(json.loads((PROJECT / "metrics/evaluate.json").read_text(encoding="utf-8")))


def test_the_run_is_up_to_date(figures: dict[str, Any]) -> None:
    assert "up to date" in run(PROJECT, "dvc", "status").stdout


def test_the_attack_works_and_the_defense_holds(figures: dict[str, Any]) -> None:
    before, after = figures["no_defense"], figures["refine"]
    assert before["benign_accuracy"] >= 0.965
    assert before["attack_success_rate"] >= 0.99
    assert after["benign_accuracy"] >= 0.965
    assert after["attack_success_rate"] <= 0.01


def test_every_test_image_was_counted(figures: dict[str, Any]) -> None:
    assert figures["images"] == {"benign": 1000, "triggered": 900}


def test_figures_are_shares_with_six_decimals(figures: dict[str, Any]) -> None:
    for system in ("no_defense", "refine"):
        values = figures[system]
        assert {name for name in values if not 0 <= values[name] <= 1} <= {"benign_nll"}
        assert all(round(value, 6) == value for value in values.values())


def test_shards_of_the_run_are_whole(figures: dict[str, Any]) -> None:
    for folder in ("data/raw/train", "data/raw/test", "data/poisoned/train", "data/poisoned/test"):
        assert len(read_split(PROJECT / folder).images)


def test_pictures_show_something(figures: dict[str, Any]) -> None:
    for picture in ("data/poisoned/preview.png", "metrics/plots/gallery.png"):
        with Image.open(PROJECT / picture) as image:
            assert np.asarray(image).std() > 10


def test_histories_have_a_row_for_each_epoch_and_nothing_with_a_clock(figures: dict[str, Any]) -> None:
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    for stage, folder in (("train_backdoor", "backdoor"), ("train_refine", "refine")):
        lines = (PROJECT / f"models/{folder}/history.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1 + params[stage]["recipe"]["epochs"]
        assert not re.search(r"time|second|date", lines[0])


def test_the_readme_shows_the_committed_figures() -> None:
    committed = run(PROJECT, "git", "show", "HEAD:metrics/evaluate.json")
    if committed.returncode != 0:
        pytest.skip("not a git checkout")
    figures = json.loads(committed.stdout)
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    named = {
        "BA": "benign_accuracy",
        "ASR": "attack_success_rate",
        "ASR floor": "asr_floor",
        "robust accuracy": "robust_accuracy",
    }
    for label, name in named.items():
        (row,) = (
            line
            for line in readme.splitlines()
            if line.startswith("|") and re.search(rf"{label}\b.*:", line) and (label != "ASR" or "floor" not in line)
        )
        shown = [f"{100 * figures[system][name]:.2f} %" for system in ("no_defense", "refine")]
        assert [cell.strip() for cell in row.split("|")[2:4]] == shown


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
