"""The clean classifier on an attack's triggered images, as it is recorded beside a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from refine.reports import clean, run
from refine.reports.run import HOME, Facts, Name

NAME = Name(dataset="folder", preset="quick", attack="none", seed=1)


@pytest.fixture(scope="module")
def made(finished: Path) -> dict[str, str]:
    """Hashes of the finished run."""
    return clean.outputs(finished)


@pytest.fixture
def note(repo: Path, made: dict[str, str]) -> Callable[..., Path]:
    """Records the run's own models as those of a run without attack; changes are made to its parameters."""

    def written(name: Name = NAME, outputs: dict[str, str] | None = None, **changes: Any) -> Path:
        facts = {"changes": {}, "commit": "0" * 40, "poisoned": 0, "cover": 0, "rate_of_dataset": 0.0}
        folder = repo / HOME / str(name)
        folder.mkdir(parents=True)
        told = Facts(name=name, rate_of_classes=None, runtime={}, outputs={**made, **(outputs or {})}, **facts)
        params = yaml.safe_load((repo / "params.yaml").read_text(encoding="utf-8"))
        for section, content in changes.items():
            params[section] |= content
        (folder / "run.json").write_text(json.dumps(told.model_dump()), encoding="utf-8")
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        shutil.copy(repo / "metrics/evaluate.json", folder)
        return repo / HOME

    return written


def test_its_answers_to_the_triggered_images_are_counted(
    repo: Path, made: dict[str, str], note: Callable[..., Path]
) -> None:
    measured = clean.measured(repo, note(), made)
    figures = json.loads((repo / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert measured is not None
    assert measured.run == str(NAME)
    assert measured.refine is not None
    for system, told in (("no_defense", measured.no_defense), ("refine", measured.refine)):
        assert told.asr_floor_triggered == figures[system]["attack_success_rate"]
        assert told.robust_accuracy == figures[system]["robust_accuracy"]
        assert told.misread == figures["misread"][system]


def test_a_defense_by_another_recipe_is_left_out(repo: Path, made: dict[str, str], note: Callable[..., Path]) -> None:
    measured = clean.measured(repo, note(train_refine={"first_channels": 16}), made)
    assert measured is not None
    assert measured.refine is None


def test_a_run_with_the_same_recipe_of_the_defense_comes_first(
    repo: Path, made: dict[str, str], note: Callable[..., Path]
) -> None:
    note(train_refine={"first_channels": 16})
    measured = clean.measured(repo, note(NAME.model_copy(update={"variant": "second"})), made)
    assert measured is not None
    assert measured.run == "folder-quick-none-second-s1"
    assert measured.refine is not None


@pytest.mark.parametrize(
    "other",
    [
        {"name": NAME.model_copy(update={"attack": "badnets"})},
        {"outputs": {"data/raw/test": "0" * 32 + ".dir"}},
        {"outputs": {"data/raw/train": "0" * 32 + ".dir"}},
        {"train_backdoor": {"seed": 2}},
        {"train_backdoor": {"network": {"name": "resnet18", "width": 16}}},
    ],
    ids=["an attack", "test images", "training images", "seed", "network"],
)
def test_a_run_that_differs_in_more_than_the_attack_is_none(
    repo: Path,
    made: dict[str, str],
    note: Callable[..., Path],
    other: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert clean.measured(repo, note(**other), made) is None
    assert "asr_floor_triggered is left out: no run of the attack none with this data" in caplog.text


def test_where_no_run_is_recorded_it_says_so(
    repo: Path, made: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert clean.measured(repo, repo / HOME, made) is None
    assert "record one first" in caplog.text


def test_models_come_from_the_cache_of_the_project_that_keeps_the_runs(
    repo: Path, made: dict[str, str], note: Callable[..., Path], tmp_path: Path
) -> None:
    """A run that must not find anything in a cache is computed in a clone with another one."""
    home, clone = note(), tmp_path / "clone"
    ignored = shutil.ignore_patterns("cache")
    shutil.copytree(repo, clone, symlinks=True, ignore=ignored)
    assert clean.measured(clone, home, made) is not None


@pytest.mark.parametrize("gone", ["models/backdoor", "models/refine"])
def test_models_that_the_cache_lost_are_named(
    repo: Path, made: dict[str, str], note: Callable[..., Path], gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert clean.measured(repo, note(outputs={gone: "0" * 32 + ".dir"}), made) is None
    assert f"left out: {gone} of the run {NAME} is not in DVC's cache" in caplog.text


def test_a_file_of_a_model_that_the_cache_lost_is_noticed(
    repo: Path, made: dict[str, str], note: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    listing = repo / ".dvc/cache/files/md5" / made["models/refine"][:2] / made["models/refine"][2:]
    md5 = next(each["md5"] for each in json.loads(listing.read_text()) if each["relpath"] == "weights.safetensors")
    (repo / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
    assert clean.measured(repo, note(), made) is None
    assert "models/refine of the run" in caplog.text


def test_runs_of_an_earlier_version_have_no_outputs(
    repo: Path, made: dict[str, str], note: Callable[..., Path]
) -> None:
    home = note()
    path = home / str(NAME) / "run.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    del told["outputs"], told["clean"]
    path.write_text(json.dumps(told), encoding="utf-8")
    assert run.read_all(home)[str(NAME)].facts.outputs == {}
    assert clean.measured(repo, home, made) is None
