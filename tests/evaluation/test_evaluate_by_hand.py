"""The stage's work on a classifier and a defense made by hand, against loops over single images."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refine.core.errors import UserError
from refine.defenses.refine import defense as refine
from refine.defenses.refine.defense import InputSpace, Refine
from refine.evaluation import evaluate as stage
from refine.evaluation import pictures
from refine.evaluation.params import EvaluateParams
from refine.evaluation.test_sets import Diagnosed, choose
from refine.evaluation.wasserstein import Both, Seen, distance
from tiny import CPU, MEAN, STD, Poisoned, attack, classifier_folder, defense_folder, files_of, poisoned, raw

CLASSES = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """30 test images of six classes, 25 of them triggered."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw", images=60, classes=CLASSES)
    return poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0]), clean)


@pytest.fixture(scope="module", params=["pixel", "normalized_clamp01"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a classifier and of a defense of it, for both input spaces."""
    folder = tmp_path_factory.mktemp("models")
    space: InputSpace = request.param
    classifier_folder(folder / "classifier", CLASSES)
    defense_folder(folder / "refine", folder / "classifier", CLASSES, space)
    return folder / "classifier", folder / "refine"


def _evaluate(data: Poisoned, models: tuple[Path, Path], folder: Path, **params: Any) -> dict[str, Any]:
    tests = stage.TestSets(data.test, data.triggered_test)
    content = {"gallery_images": 4, **params}
    return stage.evaluate(
        EvaluateParams.model_validate(content), tests, models, CPU, folder / "evaluate.json", folder / "plots"
    )


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@torch.no_grad()
def _slowly(made: Refine, data: Poisoned, defended: bool) -> dict[str, float]:
    """One image at a time, each answer looked up where their definitions say."""
    counts = dict.fromkeys(
        ["benign_accuracy", "top5_accuracy", "attack_success_rate", "asr_floor", "robust_accuracy", "raw_target_hit"], 0
    )
    nll = 0.0
    permutation = made.permutation.tolist()

    def answer(image: torch.Tensor) -> tuple[list[float], int]:
        pixels = image.unsqueeze(0).float() / 255
        logits = made.logits(made.transformed(pixels)) if defended else made.classifier(pixels)
        raw_scores = logits[0].softmax(dim=0).tolist()
        scores = [0.0] * CLASSES
        for label, score in enumerate(raw_scores):
            scores[permutation[label] if defended else label] = score
        return scores, raw_scores.index(max(raw_scores))

    clean = {}
    for key, image, label in zip(data.test.keys.tolist(), data.test.images, data.test.labels.tolist(), strict=True):
        scores, _ = answer(image)
        clean[key] = scores.index(max(scores))
        counts["benign_accuracy"] += clean[key] == label
        counts["top5_accuracy"] += sorted(scores)[0] != scores[label]
        nll -= math.log(max(scores[label], 1e-12))
    for key, image in zip(data.triggered_test.keys.tolist(), data.triggered_test.images, strict=True):
        scores, raw_answer = answer(image)
        counts["attack_success_rate"] += scores.index(max(scores)) == 0
        counts["asr_floor"] += clean[key] == 0
        counts["robust_accuracy"] += scores.index(max(scores)) == int(data.test.labels[key])
        counts["raw_target_hit"] += raw_answer == 0
    total = {name: 30 if name in ("benign_accuracy", "top5_accuracy") else 25 for name in counts}
    return {"benign_nll": nll / 30, **{name: count / total[name] for name, count in counts.items()}}


@pytest.mark.parametrize("batch_size", [1, 7, 25, 30, 100])
def test_all_figures_are_those_of_a_loop_over_single_images(
    data: Poisoned, models: tuple[Path, Path], tmp_path: Path, batch_size: int
) -> None:
    figures = _evaluate(data, models, tmp_path, batch_size=batch_size)
    made = refine.load(models[1], models[0])
    assert figures["images"] == {"benign": 30, "triggered": 25}
    assert figures["no_defense"] == pytest.approx(_slowly(made, data, defended=False), abs=1e-4)
    assert figures["refine"] == pytest.approx(_slowly(made, data, defended=True), abs=1e-4)
    assert figures["no_defense"] != figures["refine"]


@torch.no_grad()
def test_distances_are_those_of_what_the_network_makes_of_the_same_image_each_way(
    data: Poisoned, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of one image at a time: its features, its probabilities before any label map, normalized by hand."""
    figures = _evaluate(data, models, tmp_path, diagnostic_images=5)["wasserstein"]
    made = refine.load(models[1], models[0])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    images = {int(key): image for key, image in zip(data.test.keys, data.test.images, strict=True)}

    def seen(image: torch.Tensor, defended: bool) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = image.unsqueeze(0).float() / 255
        if defended and made.input_space == "pixel":
            inputs = made.transform(inputs).clamp(0, 1)
        inputs = (inputs - mean) / std
        if defended and made.input_space == "normalized_clamp01":
            inputs = made.transform(inputs).clamp(0, 1)
        features = made.classifier.network.features(inputs)  # type: ignore[operator]
        return features, made.classifier.network(inputs).softmax(dim=1)

    chosen = choose(stage.TestSets(data.test, data.triggered_test).truth, 5)
    benign = [data.test.images[place] for place in chosen.benign[:5]]
    triggered = [data.triggered_test.images[place] for place in chosen.triggered[:5]]
    clean = [images[int(data.triggered_test.keys[place])] for place in chosen.triggered[:5]]
    compared = {
        "moved_benign": (benign, False, benign, True),
        "moved_triggered": (triggered, False, triggered, True),
        "trigger_before": (clean, False, triggered, False),
        "trigger_after": (clean, True, triggered, True),
    }
    for figure, (one, one_defended, other, other_defended) in compared.items():
        for part, name in enumerate(("penultimate", "softmax")):
            here, there = (
                torch.cat([seen(image, defended)[part] for image in each])
                for each, defended in ((one, one_defended), (other, other_defended))
            )
            assert figures[name][figure] == pytest.approx(distance(here, there), abs=1e-4)
            ceiling = float((here - there).norm(dim=1).mean())
            assert figures[name][f"{figure}_ceiling"] == pytest.approx(ceiling, abs=1e-4)
            assert ceiling > 1e-3, "nothing is told apart"


def test_maps_show_features_without_the_defense_first(
    data: Poisoned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    monkeypatch.setattr(pictures, "draw_maps", lambda path, maps, *others: drawn.extend(maps))

    def seen(value: float) -> Seen:
        return Seen(torch.full((4, 2), value), torch.full((4, 3), 1 / 3))

    chosen = Diagnosed(torch.arange(4), torch.arange(4), torch.arange(2), torch.arange(2))
    benign, triggered = Both(seen(1), seen(2)), Both(seen(3), seen(4))
    tests = stage.TestSets(data.test, data.triggered_test)
    pictures.draw_features(tmp_path / "features.png", benign, triggered, chosen, tests)
    assert [title for title, _, _ in drawn] == ["penultimate features, no defense", "penultimate features, REFINE"]
    for (_, own, marked), values in zip(drawn, ((1, 3), (2, 4)), strict=True):
        assert torch.equal(own, torch.full((2, 2), values[0]))
        assert torch.equal(marked, torch.full((2, 2), values[1]))


def test_the_outputs_are_these_files_and_no_others(data: Poisoned, models: tuple[Path, Path], tmp_path: Path) -> None:
    figures = _evaluate(data, models, tmp_path)
    assert set(files_of(tmp_path)) == {
        "evaluate.json",
        "plots/confusion_no_defense.csv",
        "plots/confusion_refine.csv",
        "plots/confusion_triggered_no_defense.csv",
        "plots/confusion_triggered_refine.csv",
        "plots/features.pdf",
        "plots/features.png",
        "plots/gallery.pdf",
        "plots/gallery.png",
        "plots/snapshots.csv",
    }
    assert json.loads((tmp_path / "evaluate.json").read_text(encoding="utf-8")) == figures


def test_evaluating_again_gives_the_same_bytes(data: Poisoned, models: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        _evaluate(data, models, tmp_path / name)
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")


def test_confusions_hold_a_row_for_every_test_image(data: Poisoned, models: tuple[Path, Path], tmp_path: Path) -> None:
    figures = _evaluate(data, models, tmp_path)
    for file, system in (("confusion_no_defense.csv", "no_defense"), ("confusion_refine.csv", "refine")):
        rows = _table(tmp_path / "plots" / file)
        assert [row["actual"] for row in rows] == [f"class-{label}" for label in data.test.labels.tolist()]
        right = sum(row["actual"] == row["predicted"] for row in rows)
        assert right / 30 == pytest.approx(figures[system]["benign_accuracy"], abs=1e-6)


def test_misreadings_are_counted_where_neither_the_true_nor_the_given_label_is_answered(
    data: Poisoned, models: tuple[Path, Path], tmp_path: Path
) -> None:
    figures = _evaluate(data, models, tmp_path)
    for system in ("no_defense", "refine"):
        rows = _table(tmp_path / f"plots/confusion_triggered_{system}.csv")
        behind = [f"class-{info['original_label']}" for info in data.triggered_test.infos]
        assert [row["actual"] for row in rows] == behind
        wrong = Counter(row["predicted"] for row in rows if row["predicted"] not in (row["actual"], "class-0"))
        told = figures["misread"][system]
        assert {each["as"]: each["share"] for each in told} == {name: count / 25 for name, count in wrong.items()}
        assert [each["share"] for each in told] == sorted((each["share"] for each in told), reverse=True)
        rest = 1 - figures[system]["robust_accuracy"] - figures[system]["attack_success_rate"]
        assert sum(wrong.values()) / 25 == pytest.approx(rest)
    assert figures["misread"]["no_defense"]


def test_the_curve_holds_every_snapshot_and_ends_with_the_defense_itself(
    data: Poisoned, models: tuple[Path, Path], tmp_path: Path
) -> None:
    figures = _evaluate(data, models, tmp_path)["refine"]
    rows = _table(tmp_path / "plots/snapshots.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row, epoch in zip(rows, (1, 2), strict=True):
        expected = _slowly(refine.load(models[1], models[0], epoch), data, defended=True)
        for name in ("benign_accuracy", "attack_success_rate"):
            assert float(row[name]) == pytest.approx(expected[name], abs=1e-6)
    assert float(rows[-1]["benign_accuracy"]) == figures["benign_accuracy"]


@torch.no_grad()
def test_the_gallery_shows_clean_triggered_and_what_the_classifier_sees_of_both(
    data: Poisoned, models: tuple[Path, Path], tmp_path: Path
) -> None:
    _evaluate(data, models, tmp_path)
    with Image.open(tmp_path / "plots/gallery.png") as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    place = data.triggered_test.infos.index(next(i for i in data.triggered_test.infos if i["original_label"] == 2))
    clean = data.test.images[int(data.triggered_test.keys[place])]
    triggered = data.triggered_test.images[place]
    made = refine.load(models[1], models[0])
    shown = []
    for image in (clean, triggered):
        seen = made.pictures(image.unsqueeze(0).float() / 255)[0]
        shown += [image, (seen * 255).round().to(torch.uint8)]
    column = 1  # classes 1 to 4 have a column each; class 0 is the target
    left = 120 + column * 100
    for row, image in enumerate(shown):
        upper = 36 + row * 118
        cell = pixels[upper : upper + 96, left : left + 96]
        enlarged = image.permute(1, 2, 0).repeat_interleave(6, 0).repeat_interleave(6, 1)
        assert (cell.int() - enlarged.int()).abs().max() <= 1


def test_without_an_attack_nothing_is_said_about_triggers(models: tuple[Path, Path], tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", images=60, classes=CLASSES)
    benign = poisoned(tmp_path / "poisoned", "none", attack("none", clean[0]), clean)
    figures = _evaluate(benign, models, tmp_path / "out")
    assert figures["images"] == {"benign": 30, "triggered": 0}
    assert "misread" not in figures
    for system in ("no_defense", "refine"):
        assert set(figures[system]) == {"benign_accuracy", "benign_nll", "top5_accuracy"}
    assert [row["attack_success_rate"] for row in _table(tmp_path / "out/plots/snapshots.csv")] == ["", ""]
    assert _table(tmp_path / "out/plots/confusion_triggered_refine.csv") == []
    assert (tmp_path / "out/plots/gallery.png").is_file()


@pytest.mark.parametrize("classes", [2, 7])
def test_a_classifier_for_another_number_of_classes_is_refused(data: Poisoned, tmp_path: Path, classes: int) -> None:
    classifier_folder(tmp_path / "classifier", classes)
    defense_folder(tmp_path / "refine", tmp_path / "classifier", classes)
    with pytest.raises(UserError, match=rf"classifier knows {classes} classes, the data set has 6"):
        _evaluate(data, (tmp_path / "classifier", tmp_path / "refine"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
