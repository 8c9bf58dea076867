"""The stage's work on classifiers and defenses made by hand, against loops over single images."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from refine.defending.protocol.defense import Defense
from refine.defenses.refine import defense as refine
from refine.defenses.refine.defense import Refine
from refine.evaluation import evaluate as stage
from refine.evaluation import pictures
from refine.evaluation.evaluate import Measured
from refine.evaluation.test_sets import Diagnosed, TestSets, choose
from refine.evaluation.wasserstein import Both, Looks, Seen, distance
from systems import ALL, PURIFY, Mirrored, Negative, System, evaluated, system
from tiny import MEAN, STD, Poisoned, attack, files_of, poisoned, raw

CLASSES = 6
BENIGN, TRIGGERED = 30, 25
PARAMS = {"gallery_images": 4, "diagnostic_images": 5}
ONLY_PURIFYING = pytest.mark.parametrize("case", PURIFY, indirect=True)


@dataclass(frozen=True)
class Case:
    """A system, what was found about it, and the folder of all files."""

    of: System
    found: Measured
    folder: Path

    @property
    def name(self) -> str:
        """Of the defense."""
        return self.of.models.name

    @property
    def defense(self) -> Defense:
        """As it is loaded."""
        return self.of.defense


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """30 test images of six classes, 25 of them triggered."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw", images=2 * BENIGN, classes=CLASSES)
    return poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0]), clean)


@pytest.fixture(scope="module", params=ALL)
def case(request: pytest.FixtureRequest, data: Poisoned, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Each system, evaluated once; tests read what lies in its folder."""
    folder = tmp_path_factory.mktemp("case")
    of = system(str(request.param), folder / "models", CLASSES)
    return Case(of, evaluated(of, data, folder / "out", **PARAMS), folder / "out")


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _scores(made: Defense, image: torch.Tensor, defended: bool) -> tuple[list[float], int | None]:
    """The probabilities of one image, and what the classifier inside answers where its labels are mapped."""
    pixels = image.unsqueeze(0).float() / 255
    if not defended:
        return made.classifier(pixels)[0].softmax(dim=0).tolist(), None
    if isinstance(made, Mirrored):
        return (made.classifier(pixels) + made.classifier(pixels.flip(3)))[0].softmax(dim=0).tolist(), None
    if isinstance(made, Negative):
        return made.classifier(1 - pixels)[0].softmax(dim=0).tolist(), None
    assert isinstance(made, Refine)
    inside = made.logits(made.transformed(pixels))[0].softmax(dim=0).tolist()
    scores = [0.0] * CLASSES
    for label, place in enumerate(made.permutation.tolist()):
        scores[place] = inside[label]
    return scores, inside.index(max(inside))


@torch.no_grad()
def _slowly(made: Defense, data: Poisoned, defended: bool) -> tuple[dict[str, int], dict[str, float], list[int]]:
    """One image at a time, each answer looked up where their definitions say: hits, what else is diagnosed, and the
    answers to clean images."""
    hits = dict.fromkeys(["benign_accuracy", "attack_success_rate", "asr_floor_clean", "robust_accuracy"], 0)
    nll, top5, raw_hits, mapped = 0.0, 0, 0, False
    clean = {}
    for key, image, label in zip(data.test.keys.tolist(), data.test.images, data.test.labels.tolist(), strict=True):
        scores, _ = _scores(made, image, defended)
        clean[key] = scores.index(max(scores))
        hits["benign_accuracy"] += clean[key] == label
        top5 += sorted(scores)[0] != scores[label]
        nll -= math.log(max(scores[label], 1e-12))
    for key, image in zip(data.triggered_test.keys.tolist(), data.triggered_test.images, strict=True):
        scores, raw_answer = _scores(made, image, defended)
        hits["attack_success_rate"] += scores.index(max(scores)) == 0
        hits["asr_floor_clean"] += clean[key] == 0
        hits["robust_accuracy"] += scores.index(max(scores)) == int(data.test.labels[key])
        raw_hits += raw_answer == 0
        mapped = raw_answer is not None
    diagnosed = {"benign_nll": nll / BENIGN, "top5_accuracy": top5 / BENIGN}
    return hits, diagnosed | ({"raw_target_hit": raw_hits / TRIGGERED} if mapped else {}), [*clean.values()]


def _count(share: str) -> int:
    return BENIGN if share == "benign_accuracy" else TRIGGERED


def test_all_figures_are_those_of_a_loop_over_single_images(case: Case, data: Poisoned) -> None:
    (bare, diagnosed_bare, said_bare), (own, diagnosed, said) = (
        _slowly(case.defense, data, defended) for defended in (False, True)
    )
    told = {**case.found.diagnostics[case.name]}
    assert told.pop("agreement") == round(sum(map(int.__eq__, said, said_bare)) / BENIGN, 6)
    assert list(case.found.figures) == ["no_defense", case.name]
    assert bare != own
    for figures, hits in zip(case.found.figures.values(), (bare, own), strict=True):
        shares = {name: count / _count(name) for name, count in hits.items()}
        intervals = {
            name: list(binomtest(count, _count(name)).proportion_ci(method="wilson")) for name, count in hits.items()
        }
        falls = [bare[name] - hits[name] for name in ("attack_success_rate", "benign_accuracy")]
        rating = (max(0, falls[0]) / TRIGGERED - max(0, falls[1]) / BENIGN + 1) / 2
        assert set(figures) == {*shares, "der", "interval_95"}
        assert {name: figures[name] for name in shares} == pytest.approx(shares, abs=1e-6)
        assert figures["der"] == pytest.approx(rating, abs=1e-6)
        assert set(figures["interval_95"]) == set(intervals)
        for name, expected in intervals.items():
            assert figures["interval_95"][name] == pytest.approx(expected, abs=2e-6)
    assert case.found.diagnostics["images"] == {"benign": BENIGN, "triggered": TRIGGERED}
    assert case.found.diagnostics["no_defense"] == pytest.approx(diagnosed_bare, abs=1e-4)
    assert told == pytest.approx(diagnosed, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 25, 100])
def test_figures_are_the_same_in_batches_of_any_size(
    case: Case, data: Poisoned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    for name in ("draw_gallery", "draw_features"):
        monkeypatch.setattr(stage, name, lambda *_: None)
    found = evaluated(case.of, data, tmp_path, batch_size=batch_size, **PARAMS)
    assert found.figures == case.found.figures
    for name, figures in case.found.diagnostics.items():
        if name in ("no_defense", case.name):
            assert found.diagnostics[name] == pytest.approx(figures, abs=1e-4)
        elif name == "wasserstein":
            for each in ("penultimate", "softmax"):
                assert found.diagnostics[name][each] == pytest.approx(figures[each], abs=1e-3)
        else:
            assert found.diagnostics[name] == figures


@ONLY_PURIFYING
@torch.no_grad()
def test_distances_are_those_of_what_the_network_makes_of_the_same_image_each_way(case: Case, data: Poisoned) -> None:
    """Of one image at a time: its features, its probabilities before any label map, normalized by hand."""
    figures = case.found.diagnostics["wasserstein"]
    made = case.defense
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    images = {int(key): image for key, image in zip(data.test.keys, data.test.images, strict=True)}

    def seen(image: torch.Tensor, defended: bool) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = image.unsqueeze(0).float() / 255
        if defended and isinstance(made, Negative):
            inputs = 1 - inputs
        if defended and isinstance(made, Refine) and made.input_space == "pixel":
            inputs = made.transform(inputs).clamp(0, 1)
        inputs = (inputs - mean) / std
        if defended and isinstance(made, Refine) and made.input_space == "normalized_clamp01":
            inputs = made.transform(inputs).clamp(0, 1)
        features = made.classifier.network.features(inputs)  # type: ignore[operator]
        return features, made.classifier.network(inputs).softmax(dim=1)

    chosen = choose(TestSets(data.test, data.triggered_test).truth, 5)
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
    benign, clean, triggered = Both(seen(1), seen(2)), Both(seen(5), seen(6)), Both(seen(3), seen(4))
    tests = TestSets(data.test, data.triggered_test)
    looks = Looks(chosen, benign, (clean, triggered))
    pictures.draw_features(tmp_path / "features.png", looks, "Mirror", tests)
    assert [title for title, _, _ in drawn] == ["penultimate features, no defense", "penultimate features, Mirror"]
    for (_, own, marked), values in zip(drawn, ((1, 3), (2, 4)), strict=True):
        assert torch.equal(own, torch.full((2, 2), values[0]))
        assert torch.equal(marked, torch.full((2, 2), values[1]))


def test_the_outputs_are_these_files_and_no_others(case: Case) -> None:
    expected = {
        "no_defense.json",
        f"{case.name}.json",
        "diagnostics.json",
        "plots/confusion_no_defense.csv",
        f"plots/confusion_{case.name}.csv",
        "plots/confusion_triggered_no_defense.csv",
        f"plots/confusion_triggered_{case.name}.csv",
        "plots/gallery.pdf",
        "plots/gallery.png",
    }
    if not isinstance(case.defense, Mirrored):
        expected |= {"plots/features.pdf", "plots/features.png"}
    if isinstance(case.defense, Refine):
        expected |= {"plots/snapshots.csv"}
    assert set(files_of(case.folder)) == expected


def test_the_files_hold_what_was_found(case: Case) -> None:
    def read(name: str) -> Any:
        return json.loads((case.folder / f"{name}.json").read_text(encoding="utf-8"))

    found = case.found
    assert {name: read(name) for name in found.figures} == found.figures
    assert read("diagnostics") == found.diagnostics
    common = {"images", "attack_succeeded", "misread", "no_defense", case.name}
    assert set(found.diagnostics) - common == (set() if isinstance(case.defense, Mirrored) else {"wasserstein"})
    assert found.titles == {"no_defense": "no defense", case.name: case.defense.title}
    asr = found.figures["no_defense"]["attack_success_rate"]
    assert found.diagnostics["attack_succeeded"] is (asr >= 0.5)


@pytest.mark.parametrize("case", ["normalized_clamp01", "mirror"], indirect=True)
def test_evaluating_again_gives_the_same_bytes(case: Case, data: Poisoned, tmp_path: Path) -> None:
    evaluated(case.of, data, tmp_path, **PARAMS)
    assert files_of(tmp_path) == files_of(case.folder)


def test_confusions_hold_a_row_for_every_test_image(case: Case, data: Poisoned) -> None:
    for name, figures in case.found.figures.items():
        rows = _table(case.folder / f"plots/confusion_{name}.csv")
        assert [row["actual"] for row in rows] == [f"class-{label}" for label in data.test.labels.tolist()]
        right = sum(row["actual"] == row["predicted"] for row in rows)
        assert right / BENIGN == pytest.approx(figures["benign_accuracy"], abs=1e-6)


def test_misreadings_are_counted_where_neither_the_true_nor_the_given_label_is_answered(
    case: Case, data: Poisoned
) -> None:
    misread = case.found.diagnostics["misread"]
    assert list(misread) == ["no_defense", case.name]
    for name, figures in case.found.figures.items():
        rows = _table(case.folder / f"plots/confusion_triggered_{name}.csv")
        behind = [f"class-{info['original_label']}" for info in data.triggered_test.infos]
        assert [row["actual"] for row in rows] == behind
        wrong = Counter(row["predicted"] for row in rows if row["predicted"] not in (row["actual"], "class-0"))
        told = misread[name]
        assert {each["as"]: each["share"] for each in told} == {label: n / TRIGGERED for label, n in wrong.items()}
        assert [each["share"] for each in told] == sorted((each["share"] for each in told), reverse=True)
        rest = 1 - figures["robust_accuracy"] - figures["attack_success_rate"]
        assert sum(wrong.values()) / TRIGGERED == pytest.approx(rest)
    assert misread["no_defense"]


@pytest.mark.parametrize("case", ["pixel", "normalized_clamp01"], indirect=True)
def test_the_curve_holds_every_snapshot_and_ends_with_the_defense_itself(case: Case, data: Poisoned) -> None:
    rows = _table(case.folder / "plots/snapshots.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row, epoch in zip(rows, (1, 2), strict=True):
        made = refine.load(case.of.models.defense, case.of.models.classifier, epoch)
        hits, _, _ = _slowly(made, data, defended=True)
        for name in ("benign_accuracy", "attack_success_rate"):
            assert float(row[name]) == pytest.approx(hits[name] / _count(name), abs=1e-6)
    for name in ("benign_accuracy", "attack_success_rate"):
        assert float(rows[-1][name]) == case.found.figures["refine"][name]


@torch.no_grad()
def test_the_gallery_shows_clean_triggered_and_what_the_classifier_sees_of_both(case: Case, data: Poisoned) -> None:
    with Image.open(case.folder / "plots/gallery.png") as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    place = data.triggered_test.infos.index(next(i for i in data.triggered_test.infos if i["original_label"] == 2))
    clean = data.test.images[int(data.triggered_test.keys[place])]
    triggered = data.triggered_test.images[place]
    made = case.defense
    shown = []
    for image in (clean, triggered):
        seen = image
        if isinstance(made, Negative):
            seen = 255 - image
        if isinstance(made, Refine):
            seen = (made.pictures(image.unsqueeze(0).float() / 255)[0] * 255).round().to(torch.uint8)
        shown += [image, seen]
    column = 1  # classes 1 to 4 have a column each; class 0 is the target
    left = 120 + column * 100
    for row, image in enumerate(shown):
        upper = 36 + row * 118
        cell = pixels[upper : upper + 96, left : left + 96]
        enlarged = image.permute(1, 2, 0).repeat_interleave(6, 0).repeat_interleave(6, 1)
        assert (cell.int() - enlarged.int()).abs().max() <= 1
