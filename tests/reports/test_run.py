"""Recorded runs: their names, what differs from a preset, and folders that were tampered with."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from refine.core.errors import UserError
from refine.reports import run
from refine.reports.run import Facts, Name
from support import TINY_PARAMS

FACTS = Facts(
    name=Name(dataset="mnist5k", preset="quick", attack="badnets", seed=1),
    changes={"attacks.badnets.rate": 0.2},
    commit="0" * 40,
    poisoned=400,
    cover=0,
    rate_of_dataset=0.1,
    rate_of_classes=0.1,
    runtime={},
)
FIGURES = {"no_defense": {"benign_accuracy": 0.9}, "refine": {"benign_accuracy": 0.8}}


def _params(**seeds: int) -> dict[str, Any]:
    params: dict[str, Any] = copy.deepcopy(TINY_PARAMS)
    for section, seed in seeds.items():
        params[section]["seed"] = seed
    return params


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with one recorded run."""
    project = tmp_path / "project"
    for folder in ("metrics/plots", "data/poisoned"):
        (project / folder).mkdir(parents=True)
    (project / "params.yaml").write_text("a: 1\n", encoding="utf-8")
    (project / "metrics/evaluate.json").write_text(json.dumps(FIGURES), encoding="utf-8")
    for picture in run.PICTURES:
        Image.new("RGB", (8, 8), "red").save(project / picture)
    run.write(project, tmp_path / "runs", FACTS)
    return tmp_path / "runs"


def test_a_name_tells_data_preset_attack_variant_and_seed() -> None:
    assert str(run.name_of(_params(), "quick", "default")) == "folder-quick-badnets-default-s1"


def test_a_run_has_one_seed() -> None:
    with pytest.raises(UserError, match="a recorded run has one seed"):
        run.name_of(_params(train_refine=2), "quick", "default")


@pytest.mark.parametrize("word", ["two words", "../up", "UPPER", ""])
def test_a_name_is_made_of_plain_words(word: str) -> None:
    with pytest.raises(UserError, match=re.escape(repr(word))):
        run.name_of(_params(), "quick", word)


def test_changes_are_what_differs_by_dotted_names() -> None:
    preset, params = _params(), _params(train_refine=2)
    params["attacks"]["badnets"] = {"rate": 0.3}
    params["train_refine"]["recipe"] = "paper"
    told = run.changes(preset, params)
    assert told["attacks.badnets.rate"] == 0.3
    assert told["train_refine.seed"] == 2
    assert told["train_refine.recipe"] == "paper"
    assert not any(name.startswith("train_refine.recipe.") for name in told)
    assert run.changes(preset, preset) == {}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {"encoder": {}}, {"encoder": {}}),
        ({"encoder": {}}, {}, {"encoder": None}),
        ({"encoder": {"epochs": 8, "lr": 0.2}}, {"encoder": None}, {"encoder": None}),
        ({"encoder": None}, {"encoder": {"epochs": 8}}, {"encoder": {"epochs": 8}}),
        ({"attack": {}}, {"attack": {"rate": 0.1}}, {"attack.rate": 0.1}),
        ({"attack": {"rate": 0.1}}, {"attack": {}}, {"attack.rate": None}),
        ({}, {"attack": {"rate": 0.1}}, {"attack.rate": 0.1}),
    ],
)
def test_a_mapping_that_is_there_differs_from_none(
    before: dict[str, Any], after: dict[str, Any], told: dict[str, Any]
) -> None:
    assert run.changes(before, after) == told


def test_what_was_written_is_read(home: Path) -> None:
    (found,) = run.read_all(home).values()
    assert found.facts == FACTS
    assert found.figures == FIGURES
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "evaluate.json",
        "features.png",
        "gallery.png",
        "params.yaml",
        "preview.png",
        "run.json",
    ]


def test_no_runs_are_no_error(tmp_path: Path) -> None:
    assert run.read_all(tmp_path / "runs") == {}


def test_a_run_that_is_being_written_is_none_yet(home: Path) -> None:
    (home / ".mnist5k-quick-badnets-default-s2.partial").mkdir()
    assert list(run.read_all(home)) == [str(FACTS.name)]


def test_a_folder_with_another_name_than_its_run_is_refused(home: Path) -> None:
    (folder,) = home.iterdir()
    folder.rename(home / "mnist5k-quick-badnets-default-s2")
    with pytest.raises(UserError, match="s2 holds the run mnist5k-quick-badnets-default-s1"):
        run.read_all(home)


def test_a_damaged_record_is_named_with_a_remedy(home: Path) -> None:
    (folder,) = home.iterdir()
    (folder / "run.json").write_text('{"name": 1}', encoding="utf-8")
    with pytest.raises(UserError, match=r"run.json is damaged .*; restore it by `git checkout"):
        run.read_all(home)
