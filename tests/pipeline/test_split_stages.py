"""Splits in the pipeline: each is made before the defense that needs it, by the real `dvc` in a real repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from repositories import ok, ran
from support import write_params

PARAMS: dict[str, Any] = {
    "splits": ["oracle"],
    "split_settings": {"oracle": {"alpha_c": 0.25, "alpha_p": 0.1}},
    "defenses": ["dbr", "shrinkpad"],
    "defense_settings": {"dbr": {"split": "oracle", "recipe": {"epochs": 1, "batch_size": 8}}},
}
OF_THE_SPLIT = ["split-samples@oracle", "evaluate-split@oracle"]


def _edit(project: Path, **changes: object) -> None:
    content = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    write_params(project, {**content, **changes})


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, which had no split."""
    copy = Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))
    _edit(copy, **PARAMS)
    return copy


def test_a_split_is_made_before_the_defense_and_its_change_concerns_no_other_defense(project: Path) -> None:
    first = ran(project)
    assert set(OF_THE_SPLIT) < set(first)
    assert first.index("split-samples@oracle") < first.index("give-data@dbr")
    card = json.loads((project / "data/split/oracle/split.json").read_text(encoding="utf-8"))
    given = json.loads((project / "data/given/dbr/given.json").read_text(encoding="utf-8"))
    assert given["split"] == {"name": "oracle", "clean": 12, "poisoned": 4, "gate": "passed", "abstain": False}
    assert card["counts"] == {"clean": 12, "uncertain": 32, "poisoned": 4}
    table = json.loads(ok(project, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert table["metrics/splits/oracle.json"]["data"]["poisoned_precision"] == 1
    assert ran(project) == []
    assert ok(project, "git", "status", "--porcelain", "data") == ""  # DVC adds no line to a .gitignore

    _edit(project, split_settings={"oracle": {**PARAMS["split_settings"]["oracle"], "seed": 2}})
    anew = ran(project)
    assert set(OF_THE_SPLIT) < set(anew)
    assert {"give-data@dbr", "train-defense@dbr"} < set(anew)
    assert not {"train-defense@shrinkpad", "evaluate-defense@shrinkpad", "train-backdoor"} & set(anew)


def test_asking_for_the_data_of_a_defense_makes_its_split(project: Path) -> None:
    assert ran(project, "give-data@dbr") == ["split-samples@oracle", "give-data@dbr"]


def test_without_splits_a_defense_that_needs_none_is_made(project: Path) -> None:
    _edit(project, splits=[], defenses=["shrinkpad"])
    assert ran(project) == ["give-data@shrinkpad", "train-defense@shrinkpad", "evaluate-defense@shrinkpad"]
