"""The clean classifier on an attack's triggered images, as it is recorded beside a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorded_runs import name, record, run, write
from refine_lab import projects
from refine_lab.projects import CLASSIFIER, RAW, Stages
from refine_lab.recording import clean
from refine_lab.recording.measuring import bench
from refine_lab.runs.name import Name
from refine_lab.runs.record import Clean
from refine_lab.runs.recorded import HOME, read_all

CLEAN = name("none")


@pytest.fixture(scope="module")
def made(finished: Path) -> dict[str, str]:
    """Hashes of the finished run."""
    return projects.hashes(finished, (*RAW, CLASSIFIER, Stages("refine").model))


@pytest.fixture
def note(repo: Path, made: dict[str, str]) -> Callable[..., Path]:
    """Records the run's own models as those of a run without attack; changes are made to its parameters."""

    def written(of: Name = CLEAN, outputs: dict[str, str] | None = None, **changes: Any) -> Path:
        folder = write(repo / HOME, run(of), **changes)
        content = record(of, outputs={**made, **(outputs or {})})
        (folder / "run.json").write_text(json.dumps(content.model_dump()), encoding="utf-8")
        return repo / HOME

    return written


def _measured(project: Path, home: Path, defense: str, outputs: dict[str, str]) -> Clean | None:
    return clean.measured(clean.found(project, home, read_all(home).values(), defense, outputs), bench(project))


def test_its_answers_to_the_triggered_images_are_counted(
    repo: Path, made: dict[str, str], note: Callable[..., Path]
) -> None:
    measured = _measured(repo, note(), "refine", made)
    misread = json.loads((repo / "metrics/diagnostics/refine.json").read_text(encoding="utf-8"))["misread"]
    assert measured is not None
    assert measured.run == str(CLEAN)
    for system, answers in (("no_defense", measured.no_defense), ("refine", measured.defended)):
        figures = json.loads((repo / f"metrics/{system}.json").read_text(encoding="utf-8"))
        assert answers is not None
        assert answers.asr_floor_triggered == figures["attack_success_rate"]
        assert answers.robust_accuracy == figures["robust_accuracy"]
        assert answers.misread == misread[system]


@pytest.mark.parametrize(
    ("of", "changes"),
    [(CLEAN, {"train_refine": {"transform": {"name": "unet", "first_channels": 16}}}), (name("none", "shrinkpad"), {})],
    ids=["another recipe", "another defense"],
)
def test_a_defense_that_is_not_the_same_is_left_out(
    repo: Path, made: dict[str, str], note: Callable[..., Path], of: Name, changes: dict[str, Any]
) -> None:
    measured = _measured(repo, note(of, **changes), "refine", made)
    assert measured is not None
    assert measured.run == str(of)
    assert measured.defended is None


def test_a_run_with_the_same_recipe_of_the_defense_comes_first(
    repo: Path, made: dict[str, str], note: Callable[..., Path]
) -> None:
    note(train_refine={"transform": {"name": "unet", "first_channels": 16}})
    note(name("none", "another"))
    measured = _measured(repo, note(name("none", variant="second")), "refine", made)
    assert measured is not None
    assert measured.run == "folder-quick-none-refine-second-s1"
    assert measured.defended is not None


def test_a_run_of_another_seed_comes_after_one_of_the_same(
    repo: Path, made: dict[str, str], note: Callable[..., Path]
) -> None:
    other = name("none", variant="another")
    home = note(other, train_backdoor={"seed": 2}, train_refine={"seed": 2})
    alone = _measured(repo, home, "refine", made)
    beside = _measured(repo, note(), "refine", made)
    assert alone is not None
    assert beside is not None
    assert [alone.run, beside.run] == [str(other), str(CLEAN)]
    assert alone.defended is not None


@pytest.mark.parametrize(
    "other",
    [
        {"of": name("badnets")},
        {"outputs": {"data/raw/test": "0" * 32 + ".dir"}},
        {"outputs": {"data/raw/train": "0" * 32 + ".dir"}},
        {"train_backdoor": {"network": {"name": "resnet18", "width": 16}}},
    ],
    ids=["an attack", "test images", "training images", "network"],
)
def test_a_run_that_differs_in_more_than_the_attack_is_none(
    repo: Path,
    made: dict[str, str],
    note: Callable[..., Path],
    other: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert _measured(repo, note(**other), "refine", made) is None
    assert "asr_floor_triggered is left out: no run of the attack none with this data" in caplog.text


def test_where_no_run_is_recorded_it_says_so(
    repo: Path, made: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert _measured(repo, repo / HOME, "refine", made) is None
    assert "record one first" in caplog.text


def test_models_come_from_the_cache_of_the_project_that_keeps_the_runs(
    repo: Path, made: dict[str, str], note: Callable[..., Path], tmp_path: Path
) -> None:
    """A run that must not find anything in a cache is computed in a clone with another one."""
    home, clone = note(), tmp_path / "clone"
    ignored = shutil.ignore_patterns("cache")
    shutil.copytree(repo, clone, symlinks=True, ignore=ignored)
    assert _measured(clone, home, "refine", made) is not None


@pytest.mark.parametrize("gone", ["models/backdoor", "models/refine"])
def test_models_that_the_cache_lost_are_named(
    repo: Path, made: dict[str, str], note: Callable[..., Path], gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert _measured(repo, note(outputs={gone: "0" * 32 + ".dir"}), "refine", made) is None
    assert f"left out by {CLEAN}: {gone} of the run {CLEAN} is not in DVC's cache" in caplog.text


def test_where_models_of_one_run_are_lost_those_of_the_next_are_taken(
    repo: Path, made: dict[str, str], note: Callable[..., Path]
) -> None:
    note(outputs={"models/refine": "0" * 32 + ".dir"})
    measured = _measured(repo, note(name("none", "shrinkpad")), "refine", made)
    assert measured is not None
    assert measured.run == "folder-quick-none-shrinkpad-default-s1"
    assert measured.defended is None


def test_a_file_of_a_model_that_the_cache_lost_is_noticed(
    repo: Path, made: dict[str, str], note: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    listing = repo / ".dvc/cache/files/md5" / made["models/refine"][:2] / made["models/refine"][2:]
    md5 = next(each["md5"] for each in json.loads(listing.read_text()) if each["relpath"] == "weights.safetensors")
    (repo / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
    assert _measured(repo, note(), "refine", made) is None
    assert "models/refine of the run" in caplog.text


def test_runs_of_an_early_version_have_no_outputs(repo: Path, made: dict[str, str], note: Callable[..., Path]) -> None:
    home = note()
    path = home / str(CLEAN) / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["outputs"], content["clean"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_all(home)[str(CLEAN)].record.outputs == {}
    assert _measured(repo, home, "refine", made) is None
