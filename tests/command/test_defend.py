"""`refine defend`: from a classifier's folder and a folder of photos to a defended model that can be used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import tiny
from commands import Ended, refine
from refine.core.errors import UserError
from refine.defending.loading import load as load_defense
from refine.deployment.model import load
from refine.models import classifier as classifiers
from refine.models.card import read_card
from refine.shards.reading.reader import Split, read_split
from refine.training.checkpoint import hold
from refine.training.loop import Run
from refine.training.training_set import Resident
from support import TINY_PARAMS, synthetic

COUNT = 12
FEW = TINY_PARAMS["train_refine"]["recipe"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in a folder with a classifier, photos larger than it takes, and parameters."""
    monkeypatch.chdir(tmp_path)
    tiny.classifier_folder(Path("classifier"))
    for number, image in enumerate(synthetic(COUNT, 24)[0]):
        target = Path("photos") / ("deeper/still" if number % 3 else "") / f"{number:02d}.png"
        target.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(target)
    Path("params.yaml").write_text(yaml.safe_dump({"train_refine": TINY_PARAMS["train_refine"]}), encoding="utf-8")


def _params(file: str = "other.yaml", **changes: object) -> tuple[str, str]:
    """Options that name a file with settings for a training of a moment."""
    content = {"train_refine": {**TINY_PARAMS["train_refine"], **changes}}
    Path(file).write_text(yaml.safe_dump(content), encoding="utf-8")
    return "--params", file


def _sum(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_it_writes_a_defended_model(capsys: pytest.CaptureFixture[str]) -> None:
    ended = refine(capsys, "defend", "classifier", "photos", "new/defended", *_params())
    assert ended.status == 0, ended.err
    record = json.loads(Path("new/defended/defended.json").read_text(encoding="utf-8"))
    same = record["agreement"]["same"]
    assert ended.out.splitlines()[0] == (
        f"new/defended holds the defended model, trained on {COUNT - 1} images; it agrees with classifier on {same} "
        f"of 1 others ({100 * same:.1f} %)"
    )
    assert sorted(path.name for path in Path("new").iterdir()) == ["defended"]
    for name in ("card.json", "weights.safetensors"):
        assert Path("new/defended/classifier", name).read_bytes() == Path("classifier", name).read_bytes()
    for part in ("classifier", "defense"):
        assert record[part] == {
            "card_sha256": _sum(f"new/defended/{part}/card.json"),
            "weights_sha256": _sum(f"new/defended/{part}/weights.safetensors"),
        }
    sums = sorted(_sum(str(path)) for path in Path("photos").rglob("*.png"))
    whole = hashlib.sha256("".join(f"{each}\n" for each in sums).encode()).hexdigest()
    assert record["images"] == {"count": COUNT, "sha256": whole, "held_out": 1, "classes": 3}
    assert "of its 3 classes" not in ended.out
    assert record["built_in"] is False
    assert record["settings"]["recipe"]["batch_size"] == 8
    assert set(record["versions"]) == {"refine", "torch"}
    card = json.loads(Path("new/defended/defense/card.json").read_text(encoding="utf-8"))
    assert card["training"]["recipe"]["epochs"] == TINY_PARAMS["train_refine"]["recipe"]["epochs"]


def test_labeled_images_tell_the_accuracy_and_are_never_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    for number, image in enumerate(synthetic(COUNT + 6, 24)[0][COUNT:]):
        folder = Path(f"check/class-{number % 3}")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(folder / f"{number}.png")
    ended = refine(capsys, "defend", "classifier", "photos", "defended", *_params(), "--check", "check")
    assert ended.status == 0, ended.err
    assert "accuracy on 6 images in check: " in ended.out
    Path("photos/same.png").write_bytes(Path("check/class-0/0.png").read_bytes())
    other = refine(capsys, "defend", "classifier", "photos", "other", *_params(), "--check", "check")
    assert other.is_one_sentence("check/class-0/0.png is also photos/same.png")
    assert not Path("other").exists()


def test_what_it_wrote_can_be_used_wherever_it_lies(capsys: pytest.CaptureFixture[str]) -> None:
    assert refine(capsys, "defend", "classifier", "photos", "defended", *_params()).status == 0
    Path("classifier").rename("gone")
    Path("defended").rename("elsewhere")
    used = refine(capsys, "predict", "elsewhere", "photos", "--csv")
    assert len(used.out.splitlines()) == 1 + COUNT
    model = load("elsewhere", device="cpu")
    defense = load_defense(Path("elsewhere/defense"), Path("elsewhere/classifier"))
    images = synthetic(5)[0]
    with torch.no_grad():
        expected = defense.probabilities(images / 255)
    assert [each.label for each in model.classify(images)] == expected.argmax(dim=1).tolist()


@pytest.mark.parametrize("part", ["classifier", "defense"])
def test_an_exchanged_part_is_noticed(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refine(capsys, "defend", "classifier", "photos", "defended", *_params()).status == 0
    card = Path("defended", part, "card.json")
    content = json.loads(card.read_text(encoding="utf-8"))
    card.write_text(json.dumps({**content, "training": {"by": "me"}}), encoding="utf-8")
    ended = refine(capsys, "predict", "defended", "photos")
    assert ended.is_one_sentence(f"defended/{part} is not the one that defended/defended.json names")


def test_it_trains_on_all_photos_but_a_tenth_as_the_classifier_takes_them_and_knows_no_label(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []

    def looked(_params: object, images: Resident, *_: object) -> None:
        assert sum(images.sizes) == COUNT - 1
        seen.extend(read_split(Path("defended.part", name)) for name in ("train", "held_out"))
        raise UserError("enough")

    monkeypatch.setattr("refine.defenses.refine.training.train.train_refine", looked)
    refine(capsys, "defend", "classifier", "photos", "defended", *_params())
    card = read_card(Path("classifier"), classifiers.ClassifierCard)
    images = torch.cat([split.images for split in seen])
    assert images.shape == (COUNT, 3, 16, 16)
    assert [len(split.images) for split in seen] == [COUNT - 1, 1]
    assert {label for split in seen for label in split.labels.tolist()} == {0}
    assert seen[0].manifest.mean == card.normalization.mean
    for photo in Path("photos").rglob("*.png"):
        with Image.open(photo) as image:
            expected = torch.from_numpy(np.array(image.resize((16, 16), Image.Resampling.BILINEAR))).permute(2, 0, 1)
        assert sum(torch.equal(other, expected) for other in images) == 1


def test_classes_that_are_not_in_the_photos_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The held-out images do not tell: they lack the same classes."""
    photos = sorted(Path("photos").rglob("*.png"))
    answers = [each.label for each in load("classifier", device="cpu").classify(photos)]
    for photo, label in zip(photos, answers, strict=True):
        if label == answers[0]:
            photo.unlink()
    ended = refine(capsys, "defend", "classifier", "photos", "defended", *_params(recipe={**FEW, "batch_size": 2}))
    assert f"sees only {len({*answers}) - 1} of its 3 classes in these images" in ended.out, ended.err


def test_settings_of_its_own_fit_the_photos(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the package, made shorter; `params.yaml` in the working folder is an experiment's."""
    Path("params.yaml").write_text("train_refine: {}", encoding="utf-8")
    monkeypatch.setattr("refine.deployment.settings.STEPS", {"encoder": 3, "recipe": 3})
    ended = refine(capsys, "defend", "classifier", "photos", "defended")
    assert ended.status == 0, ended.err
    record = json.loads(Path("defended/defended.json").read_text(encoding="utf-8"))
    assert record["built_in"] is True
    assert record["settings"]["transform"]["name"] == "encoder_decoder"
    assert record["settings"]["recipe"]["batch_size"] == COUNT - 1


def _refused(capsys: pytest.CaptureFixture[str], *mentions: str, out: str = "out") -> None:
    before = sorted(Path().rglob("*"))
    ended = refine(capsys, "defend", "classifier", "photos", out, "--params", "params.yaml")
    assert ended.status == 1
    assert [line for line in ended.err.splitlines() if all(mention in line for mention in mentions)]
    assert ended.err.count("error: ") == 1
    assert sorted(Path().rglob("*")) == before


def test_what_is_there_already_stays(capsys: pytest.CaptureFixture[str]) -> None:
    _refused(capsys, "photos already exists; give another folder", out="photos")


def test_the_same_command_leaves_what_it_has_made_and_goes_on_with_the_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = refine(capsys, "defend", "classifier", "photos", "defended", *_params())
    before = {path: path.stat().st_mtime_ns for path in Path("defended").rglob("*")}
    monkeypatch.setattr("refine.command.report.write", lambda out, *_: click.echo(f"a report of {out}"))
    few = refine(capsys, "defend", "classifier", "photos", "another", *_params(), "--report")
    assert few.is_one_sentence("the stress test needs 400 images or more, and there are 12")
    monkeypatch.setattr("refine.proof.stress.parts.sizes_of", lambda *_: [])
    again = refine(capsys, "defend", "classifier", "photos", "defended", *_params(), "--report")
    assert (again.status, again.out) == (0, f"{first.out}a report of defended\n")
    assert {path: path.stat().st_mtime_ns for path in Path("defended").rglob("*")} == before
    Path("photos/00.png").unlink()
    ended = refine(capsys, "defend", "classifier", "photos", "defended")
    assert ended.is_one_sentence("defended already exists, made of other images and other settings; give another")


def test_a_damaged_photo_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/00.png").write_bytes(b"no image")
    _refused(capsys, "photos/00.png cannot be read as an image")


def test_fewer_photos_than_a_batch_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for photo in list(Path("photos").rglob("*.png"))[5:]:
        photo.unlink()
    _refused(capsys, "train_refine.recipe", "batch")


def test_a_wrong_parameter_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"train_refine": {**TINY_PARAMS["train_refine"], "sed": 7}}
    Path("params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    _refused(capsys, "params.yaml: train_refine: 'sed' is not known, did you mean 'seed'?")


def test_a_single_photo_is_too_little(capsys: pytest.CaptureFixture[str]) -> None:
    for photo in list(Path("photos").rglob("*.png"))[1:]:
        photo.unlink()
    _refused(capsys, "a single image is too little")


def _interrupted(capsys: pytest.CaptureFixture[str], epoch: int) -> Ended:
    """A run that is interrupted in this epoch of its training."""
    whole = Run._epoch

    def interrupting(run: Run, number: int) -> dict[str, float]:
        if number == epoch:
            raise KeyboardInterrupt
        return whole(run, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_epoch", interrupting)
        return refine(capsys, "defend", "classifier", "photos", "out", *_params())


def test_an_interrupted_run_goes_on_where_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refine(capsys, "defend", "classifier", "photos", "whole", *_params()).status == 0
    ended = _interrupted(capsys, 2)
    assert ended.status == 130
    sentence = "error: interrupted, and out was not written; type the same command again to go on"
    assert ended.err.splitlines()[-1] == sentence
    assert not Path("out").exists()
    epochs: list[int] = []
    whole = Run._epoch
    monkeypatch.setattr(Run, "_epoch", lambda run, number: epochs.append(number) or whole(run, number))
    monkeypatch.setattr("refine.deployment.defend._write", None)  # the photos are not read again
    assert refine(capsys, "defend", "classifier", "photos", "out", *_params()).status == 0
    assert epochs == [2]
    assert tiny.files_of(Path("out")) == tiny.files_of(Path("whole"))
    assert not Path("out.part").exists()


def test_what_is_left_of_another_run_is_not_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    _interrupted(capsys, 2)
    before = tiny.files_of(Path("out.part"))
    ended = refine(capsys, "defend", "classifier", "photos", "out", *_params(seed=9))
    assert ended.is_one_sentence("out.part is left from an unfinished run with other settings; remove out.part")
    Path("photos/00.png").unlink()
    tiny.classifier_folder(Path("second"), seed=1)
    ended = refine(capsys, "defend", "second", "photos", "out", *_params())
    assert ended.is_one_sentence("with another classifier and other images; remove out.part, or give another folder")
    assert tiny.files_of(Path("out.part")) == before


def test_two_at_a_time_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    _interrupted(capsys, 2)
    with hold(Path("out.part")):
        ended = refine(capsys, "defend", "classifier", "photos", "out", *_params())
    assert "is training this very run" in ended.err
    assert Path("out.part/train/manifest.json").is_file()
