"""What the stages that evaluate write, and when they write nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from refine.core.errors import UserError
from refine.core.machine import machine
from refine.defenses.refine import defense as refine
from refine.defenses.refine.card import RefineCard
from refine.defenses.refine.defense import Refine
from refine.evaluation import evaluate as stage
from refine.evaluation.evaluate import Outputs
from refine.evaluation.params import EvaluateParams
from refine.evaluation.stage import measure_all
from refine.models import classifier as classifiers
from refine.models.card import read_card
from refine.shards.reading.pixels import to_pixels
from systems import System, evaluated, system
from tiny import Poisoned, attack, files_of, poisoned, raw

CLASSES = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """30 test images of six classes, 25 of them triggered."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw", images=60, classes=CLASSES)
    return poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0]), clean)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A defense that neither purifies nor maps labels, the fastest one to measure."""
    return system("mirror", tmp_path_factory.mktemp("plain"), CLASSES)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes most of the time."""
    for name in ("draw_gallery", "draw_features"):
        monkeypatch.setattr(stage, name, lambda *_: None)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("kind", ["pixel", "negative", "mirror"])
def test_a_further_defense_leaves_the_figures_without_defense_alone(kind: str, data: Poisoned, tmp_path: Path) -> None:
    """They are an output of the stage evaluate, and no two stages may write the same file."""
    of = system(kind, tmp_path / "models", CLASSES)
    both = evaluated(of, data, tmp_path / "both")
    alone = evaluated(of, data, tmp_path / "alone", bare=False)
    assert both == alone
    files = files_of(tmp_path / "both")
    del files["no_defense.json"]
    assert files_of(tmp_path / "alone") == files


@pytest.mark.usefixtures("no_pictures")
def test_what_answers_inside_a_defense_is_measured_beside_it(data: Poisoned, tmp_path: Path) -> None:
    """Here an encoder under a head that answers always the same, so that its figures are known."""
    of = system("pixel", tmp_path / "models", CLASSES)
    assert isinstance(of.defense, Refine)
    head = of.defense.transform.new_head(CLASSES)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.arange(CLASSES, 0, -1))
    refine.save(of.models.defense, of.defense, read_card(of.models.defense, RefineCard), head)
    with_head = evaluated(of, data, tmp_path / "with")
    figures = with_head.diagnostics["parts"]["encoder"]
    assert figures["benign_accuracy"] == pytest.approx((data.test.labels == 0).double().mean().item(), abs=1e-6)
    assert (figures["attack_success_rate"], figures["asr_floor_clean"], figures["robust_accuracy"]) == (1, 1, 0)
    assert set(figures) == {*with_head.figures["refine"], "agreement"}
    bare = classifiers.load(of.models.classifier)[0].eval()
    with torch.inference_mode():
        answered = bare(to_pixels(data.test.images)).argmax(dim=1)
    assert figures["agreement"] == round((answered == 0).double().mean().item(), 6)
    assert list(with_head.figures) == ["no_defense", "refine"]


@pytest.mark.usefixtures("no_pictures")
def test_every_system_s_file_has_the_same_keys(data: Poisoned, tmp_path: Path) -> None:
    """So that DVC's table of them has a column for each figure and no empty cell."""
    contents = []
    for kind in ("pixel", "negative", "mirror"):
        of = system(kind, tmp_path / kind / "models", CLASSES)
        figures = evaluated(of, data, tmp_path / kind).figures
        contents += [_read(tmp_path / kind / f"{name}.json") for name in figures]
        assert dict(zip(figures, contents[-2:], strict=True)) == figures
    shares = {"benign_accuracy", "attack_success_rate", "asr_floor_clean", "robust_accuracy"}
    assert len(contents) == 6
    assert all(set(content) == {*shares, "der", "interval_95"} for content in contents)
    assert all(set(content["interval_95"]) == shares for content in contents)
    assert all(content["der"] == 0.5 for content in contents[::2])


def test_without_an_attack_nothing_is_said_about_triggers(plain: System, tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", images=60, classes=CLASSES)
    benign = poisoned(tmp_path / "poisoned", "none", attack("none", clean[0]), clean)
    for of in (plain, system("pixel", tmp_path / "models", CLASSES)):
        found = evaluated(of, benign, tmp_path / of.models.name, gallery_images=2)
        assert found.diagnostics["images"] == {"benign": 30, "triggered": 0}
        assert not {"misread", "attack_succeeded"} & set(found.diagnostics)
        for name, figures in found.figures.items():
            assert set(figures) == {"benign_accuracy", "interval_95"}
            assert set(figures["interval_95"]) == {"benign_accuracy"}
            told = {"benign_nll", "top5_accuracy"}
            assert set(found.diagnostics[name]) == (told if name == "no_defense" else {*told, "agreement"})
        plots = tmp_path / of.models.name / "plots"
        text = (plots / f"confusion_triggered_{of.models.name}.csv").read_text(encoding="utf-8")
        assert text == "actual,predicted\n"
        assert (plots / "gallery.png").is_file()
    rows = (tmp_path / "refine/plots/snapshots.csv").read_text(encoding="utf-8").splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2"]
    assert all(row.endswith(",") for row in rows[1:])


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("least_asr", "succeeded"), [(0.0, True), (1.0, False)])
def test_whether_the_attack_succeeded_is_asked_of_the_bare_classifier(
    data: Poisoned, plain: System, tmp_path: Path, least_asr: float, succeeded: bool
) -> None:
    found = evaluated(plain, data, tmp_path, least_asr=least_asr)
    assert found.figures["no_defense"]["attack_success_rate"] < 1
    assert found.diagnostics["attack_succeeded"] is succeeded


@pytest.mark.parametrize("classes", [2, 7])
def test_a_classifier_for_another_number_of_classes_is_refused(data: Poisoned, tmp_path: Path, classes: int) -> None:
    of = system("pixel", tmp_path / "models", classes)
    with pytest.raises(UserError, match=rf"classifier knows {classes} classes, the data set has 6"):
        evaluated(of, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_a_picture_cannot_be_drawn_no_figure_is_written(
    data: Poisoned, plain: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(stage, "draw_gallery", fail)
    with pytest.raises(OSError, match="no room"):
        evaluated(plain, data, tmp_path / "out")
    assert files_of(tmp_path / "out") == {}


@pytest.mark.usefixtures("no_pictures")
def test_the_stages_read_folders_and_print_the_table(
    data: Poisoned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = system("pixel", tmp_path / "models", CLASSES)
    outputs = Outputs(tmp_path, tmp_path / "diagnostics.json", tmp_path / "plots", bare=True)
    clean, triggered = data.outputs.train.parents[1] / "raw/test", data.outputs.test
    record = measure_all(EvaluateParams(), clean, triggered, of.models, outputs, machine({"REFINE_DEVICE": "cpu"}))
    assert (record["device"], record["threads"]) == ("cpu", torch.get_num_threads())
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["no", "defense", "REFINE"]
    assert "30 benign and 25 triggered test images; 95 % intervals in brackets" in printed


@pytest.mark.parametrize("kind", ["pixel", "mirror"])
def test_without_labels_the_only_figure_is_agreement(kind: str, tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", images=60, classes=CLASSES)
    benign = poisoned(tmp_path / "poisoned", "none", attack("none", clean[0]), clean)
    nameless = {"labeled": False, "classes": []}
    unlabeled = [
        replace(split, labels=0 * split.labels, manifest=split.manifest.model_copy(update=nameless))
        for split in (benign.test, benign.triggered_test)
    ]
    of = system(kind, tmp_path / "models", CLASSES)
    found = evaluated(of, replace(benign, test=unlabeled[0], triggered_test=unlabeled[1]), tmp_path / "out")
    bare = classifiers.load(of.models.classifier)[0](to_pixels(benign.test.images)).argmax(dim=1)
    same = bare == of.defense(to_pixels(benign.test.images)).argmax(dim=1)
    after = _read(tmp_path / f"out/{of.models.name}.json")
    assert after == found.figures[of.models.name]
    assert set(after) == set(after["interval_95"]) | {"interval_95"} == {"agreement", "interval_95"}
    assert after["agreement"] == pytest.approx(same.double().mean().item(), abs=1e-6)
    assert 0 < after["agreement"] < 1
    assert found.figures["no_defense"]["agreement"] == 1
    assert found.diagnostics["images"] == {"benign": 30, "triggered": 0}
    assert "benign_nll" not in str(found.diagnostics)
    assert (tmp_path / "out/plots/gallery.png").is_file()
