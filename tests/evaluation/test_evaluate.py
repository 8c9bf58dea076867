"""The stage's work on tiny models: every image counts, in any batch, and the files say what they should."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from refine.core.errors import UserError
from refine.defenses.refine import defense as refine
from refine.evaluation.evaluate import bare_answers, defended_answers, evaluate
from refine.evaluation.params import EvaluateParams
from refine.evaluation.test_sets import TestSets
from refine.models.device import Compute
from refine.shards.reading.reader import read_split
from support import run_stage, tiny_project

CPU = Compute(torch.device("cpu"), 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project up to its defense."""
    project = tiny_project(tmp_path_factory.mktemp("trained") / "project")
    for stage in ("download", "poison_dataset", "train_backdoor", "train_refine"):
        result = run_stage(project, stage)
        assert result.returncode == 0, result.stderr
    return project


@pytest.fixture(scope="module")
def tests(trained: Path) -> TestSets:
    """Its clean and triggered test images."""
    return TestSets(read_split(trained / "data/raw/test"), read_split(trained / "data/poisoned/test"))


def _models(project: Path) -> tuple[Path, Path]:
    return project / "models/backdoor", project / "models/refine"


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
def test_every_image_gets_the_same_answer_in_any_batch(trained: Path, tests: TestSets, batch_size: int) -> None:
    classifier, defense = _models(trained)
    defended = refine.load(defense, classifier)
    whole = defended_answers(defended, tests, 24, CPU)
    parts = defended_answers(defended, tests, batch_size, CPU)
    assert parts.benign.shape == (24, 3)
    assert parts.triggered.shape == (16, 3)
    torch.testing.assert_close(parts.benign, whole.benign, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.triggered, whole.triggered, rtol=1e-4, atol=1e-5)


def test_the_defense_s_raw_answers_are_those_of_the_classifier_inside(trained: Path, tests: TestSets) -> None:
    classifier, defense = _models(trained)
    defended = refine.load(defense, classifier)
    pixels = tests.triggered.images.float() / 255
    with torch.no_grad():
        inside = defended.logits(defended.transformed(pixels)).argmax(dim=1)
    assert torch.equal(defended_answers(defended, tests, 8, CPU).raw_triggered, inside)


def test_the_bare_answers_are_the_classifier_s(trained: Path, tests: TestSets) -> None:
    classifier, defense = _models(trained)
    bare = refine.load(defense, classifier).classifier
    with torch.no_grad():
        expected: Tensor = bare(tests.clean.images.float() / 255).softmax(dim=1)
    answers = bare_answers(bare, tests, 5, CPU)
    torch.testing.assert_close(answers.benign, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(answers.raw_triggered, answers.triggered.argmax(dim=1))


def test_figures_curves_and_pictures_are_written(trained: Path, tests: TestSets, tmp_path: Path) -> None:
    metrics, plots = tmp_path / "metrics/evaluate.json", tmp_path / "metrics/plots"
    figures = evaluate(EvaluateParams(batch_size=16, gallery_images=3), tests, _models(trained), CPU, metrics, plots)
    assert json.loads(metrics.read_text(encoding="utf-8")) == figures
    assert set(figures) == {"images", "no_defense", "refine", "attack_succeeded", "misread", "wasserstein"}
    assert figures["attack_succeeded"] == (figures["no_defense"]["attack_success_rate"] >= 0.5)
    assert figures["images"] == {"benign": 24, "triggered": 16}
    curve = list(csv.DictReader((plots / "snapshots.csv").open(encoding="utf-8")))
    assert [row["epoch"] for row in curve] == ["1", "2"]
    assert float(curve[-1]["attack_success_rate"]) == figures["refine"]["attack_success_rate"]
    for name in ("confusion_no_defense.csv", "confusion_refine.csv"):
        rows = list(csv.DictReader((plots / name).open(encoding="utf-8")))
        assert [row["actual"] for row in rows] == [f"class-{label}" for label in tests.clean.labels.tolist()]
    with Image.open(plots / "gallery.png") as picture:
        assert picture.width > 3 * 96


def test_triggered_images_of_another_data_set_are_refused(tests: TestSets) -> None:
    stranger = _with_keys(tests, tests.triggered.keys + 1000)
    with pytest.raises(UserError, match="belongs to another data set"):
        _ = stranger.truth
    manifest = tests.triggered.manifest
    for changes in ({"side": 8}, {"classes": [*manifest.classes[:2], "another"]}):
        stranger = replace(tests, triggered=replace(tests.triggered, manifest=manifest.model_copy(update=changes)))
        with pytest.raises(UserError, match="belongs to another data set"):
            _ = stranger.truth


def test_a_test_set_without_images_is_refused(tests: TestSets) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(UserError, match="the clean test set holds no image"):
        _ = replace(tests, clean=replace(tests.clean, keys=none, labels=none)).truth


def _with_keys(tests: TestSets, keys: Tensor) -> TestSets:
    """The same test set, with other keys of its triggered images."""
    return TestSets(tests.clean, replace(tests.triggered, keys=keys))
