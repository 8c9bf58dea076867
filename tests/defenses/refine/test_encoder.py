"""The encoder, trained before the whole transform is; pseudo-labels, asked for once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from refine.core.errors import UserError
from refine.defending.pseudo_labels import Answered, PseudoLabels
from refine.defenses.refine import defense as refine
from refine.defenses.refine.defense import InputSpace, Refine
from refine.defenses.refine.training import train as training
from refine.defenses.refine.training.encoder import mixed, train_encoder
from refine.defenses.refine.training.params import TrainRefineParams
from refine.defenses.refine.training.train import train_refine
from refine.training.batches import Batches
from refine.training.training_set import Resident
from support import synthetic
from tiny import CPU, classifier, classifier_folder, defense, refine_params, same_tensors

ENCODER = {"epochs": 6, "batch_size": 8, "optimizer": {"lr": 0.05}, "augment": {"flip": 0.5}, "label_smoothing": 0.0}


def _params(**changes: Any) -> TrainRefineParams:
    return refine_params(encoder={**ENCODER, **changes}, pseudo_labels="once")


def _trained(made: Refine, params: TrainRefineParams) -> list[dict[str, float]]:
    """The history of an encoder that learns to tell the brightness of images."""
    assert params.encoder is not None
    images, labels = synthetic(96)
    answers = PseudoLabels(made.classifier, params.recipe, True, CPU, "fp32")
    head = made.transform.begin(made.classifier, 3, lambda: images)
    return train_encoder(params.encoder, 1, made, head, Answered(Resident(images, ()), labels), answers, CPU, None)


def test_the_encoder_alone_changes_and_comes_to_tell_the_pseudo_labels() -> None:
    made = defense(classifier())
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    history = _trained(made, _params())
    changed = {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[1] for name in changed} == {"inlet", "down"}
    weights = {name for name, _ in made.named_parameters() if name.startswith(("transform.inlet", "transform.down"))}
    assert weights <= changed
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[0]["agreement"] < 0.9 < history[-1]["agreement"]


def test_smoothed_labels_leave_a_loss_even_where_all_agree() -> None:
    sharp, smooth = (_trained(defense(classifier()), _params(label_smoothing=share)) for share in (0.0, 0.3))
    assert smooth[-1]["loss"] > sharp[-1]["loss"] + 0.2


def test_it_sees_what_the_transform_will_see() -> None:
    spaces: tuple[InputSpace, InputSpace] = ("pixel", "normalized_clamp01")
    pixel, normalized = (_trained(defense(classifier(), space=space), _params()) for space in spaces)
    assert pixel[0]["loss"] != pytest.approx(normalized[0]["loss"], rel=1e-6)


def test_pseudo_labels_asked_for_once_are_those_of_the_images_as_they_are() -> None:
    images = synthetic(40)[0]
    frozen = classifier()
    wanted = {image.numpy().tobytes(): frozen(image.unsqueeze(0) / 255).argmax().item() for image in images}
    assert len(set(wanted.values())) > 1
    answers = PseudoLabels(frozen, _params().recipe, True, CPU, "fp32")
    given = answers.given_to(Resident(images, (), sizes=[10, 0, 30]))
    seen = 0
    for batch in Batches(given, 8, False, 16, CPU.device).epoch(seed=3):
        for pixels, label in zip(batch.pixels, answers.of_batch(batch, 1 - batch.pixels), strict=True):
            seen += 1
            assert wanted[(pixels * 255).round().to(torch.uint8).contiguous().numpy().tobytes()] == label.item()
    assert seen == 40


@pytest.mark.parametrize("once", [True, False])
def test_labels_and_logits_follow_from_features(once: bool) -> None:
    images, frozen = Resident(synthetic(40)[0], ()), classifier()
    answers = PseudoLabels(frozen, refine_params().recipe, once, CPU, "fp32", "features")
    (batch,) = Batches(answers.given_to(images), 40, False, 40, CPU.device).epoch(seed=3)
    augmented = 1 - batch.pixels
    wanted = frozen(batch.pixels if once else augmented)
    assert len(wanted.argmax(dim=1).unique()) > 1
    features = answers.features_of_batch(batch, augmented)
    assert torch.allclose(
        features, frozen.network.features(frozen.normalize(batch.pixels if once else augmented)), atol=1e-5
    )
    assert torch.allclose(answers.logits_from(features), wanted, atol=1e-5)
    assert torch.allclose(answers.logits_of_batch(batch, augmented), wanted, atol=1e-4)
    assert torch.equal(answers.of_batch(batch, augmented), wanted.argmax(dim=1))


def test_pseudo_labels_of_each_step_are_those_of_the_augmented_images() -> None:
    images = Resident(synthetic(40)[0], ())
    frozen = classifier()
    answers = PseudoLabels(frozen, refine_params().recipe, False, CPU, "fp32")
    assert answers.given_to(images) is images
    (batch,) = Batches(images, 40, False, 40, CPU.device).epoch(seed=3)
    augmented = 1 - batch.pixels
    assert torch.equal(answers.of_batch(batch, augmented), frozen(augmented).argmax(dim=1))
    assert not torch.equal(frozen(augmented).argmax(dim=1), frozen(batch.pixels).argmax(dim=1))


def test_a_part_of_labeled_images_keeps_its_labels() -> None:
    images, labels = synthetic(30)
    chosen = torch.arange(30) % 4 == 1
    part = Answered(Resident(images, (), sizes=[12, 18]), labels).subset(chosen)
    (batch,) = Batches(part, int(chosen.sum()), False, 30, CPU.device).epoch(seed=1)
    brightness = batch.pixels.mean(dim=(1, 2, 3)) * 255
    assert torch.equal(batch.fields[0], ((brightness - 30) / (190 // 3)).round().long())
    assert part.sizes == [3, 5]


def _encoder_after(folder: Path, images: Resident, **changes: Any) -> dict[str, Tensor]:
    params = _params(**changes)
    train_refine(params, images, folder.parent / "classifier", CPU, folder)
    tensors = refine.load(folder, folder.parent / "classifier").transform.state_dict()
    return {name: tensor for name, tensor in tensors.items() if name.startswith(("inlet", "down"))}


def test_frozen_it_stays_as_it_was_trained_and_the_decoder_learns(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier")
    images = Resident(synthetic(48)[0], ())
    trained: list[dict[str, Tensor]] = []

    def watched(*given: Any) -> Any:
        history = train_encoder(*given)
        trained.append({name: tensor.clone() for name, tensor in given[2].transform.state_dict().items()})
        return history

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_encoder", watched)
        frozen = _encoder_after(tmp_path / "frozen", images, frozen=True)
        free = _encoder_after(tmp_path / "free", images)
    assert same_tensors(frozen, {name: trained[0][name] for name in frozen})
    assert all(not torch.equal(free[name], trained[1][name]) for name in free)
    made = refine.load(tmp_path / "frozen", tmp_path / "classifier").transform
    decoder = {name for name, _ in made.named_parameters()} - set(frozen)
    assert decoder
    assert all(not torch.equal(made.get_parameter(name), trained[0][name]) for name in decoder)


@pytest.mark.parametrize("transform", [{"name": "unet", "first_channels": 8}, {"name": "encoder_decoder"}])
def test_frozen_it_is_kept_with_its_head_and_answers_by_itself(tmp_path: Path, transform: dict[str, Any]) -> None:
    """As at the end of its training, so the head that is stored belongs to the encoder that is stored."""
    classifier_folder(tmp_path / "classifier")
    images, pixels, wanted = Resident(synthetic(48)[0], ()), torch.rand(5, 3, 16, 16), []

    def watched(*given: Any) -> Any:
        history = train_encoder(*given)
        made, head = given[2:4]
        with torch.no_grad():
            wanted.append(head(made.eval().transform.encoded(pixels)))
        return history

    params = refine_params(encoder={**ENCODER, "frozen": True}, pseudo_labels="once", transform=transform)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_encoder", watched)
        train_refine(params, images, tmp_path / "classifier", CPU, tmp_path / "refine")
    (name, part), *others = refine.parts(tmp_path / "refine", tmp_path / "classifier").items()
    assert (name, others) == ("encoder", [])
    assert not any(module.training for module in part.modules())
    torch.testing.assert_close(part(pixels), wanted[0])
    defended = refine.load(tmp_path / "refine", tmp_path / "classifier")
    assert not torch.allclose(part(pixels), defended(pixels), atol=1e-3)


def test_an_encoder_that_goes_on_learning_leaves_its_head_behind(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier")
    images = Resident(synthetic(48)[0], ())
    for name, params in (("free", _params()), ("plain", refine_params())):
        train_refine(params, images, tmp_path / "classifier", CPU, tmp_path / name)
        assert refine.parts(tmp_path / name, tmp_path / "classifier") == {}
        assert not (tmp_path / name / refine.ENCODER_HEAD).exists()


def test_its_history_lies_beside_the_transforms(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier")
    images = Resident(synthetic(48)[0], ())
    train_refine(_params(), images, tmp_path / "classifier", CPU, tmp_path / "refine")
    with (tmp_path / "refine/encoder_history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert set(rows[0]) == {"epoch", "learning_rate", "loss", "agreement"}
    train_refine(refine_params(), images, tmp_path / "classifier", CPU, tmp_path / "plain")
    assert (tmp_path / "plain/encoder_history.csv").read_text(encoding="utf-8") == "epoch\n"  # nothing to plot


def test_a_lone_image_in_its_batches_is_refused_before_any_work(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier")
    params = _params(drop_last=False, batch_size=47)
    with pytest.raises(UserError, match=r"^train_refine\.encoder: .*single one of the 48 images.*raise batch_size"):
        train_refine(params, Resident(synthetic(48)[0], ()), tmp_path / "classifier", CPU, tmp_path / "refine")
    assert not (tmp_path / "refine").exists()


def test_a_mixture_is_of_an_image_and_another_one_at_a_share_of_its_own() -> None:
    images = torch.eye(16).view(16, 1, 4, 4).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    results = mixed(images, torch.Generator().manual_seed(1))
    assert results.shape == images.shape
    assert results.is_contiguous(memory_format=torch.channels_last)
    shares = results[:, 0].flatten(1)  # of each image in each mixture
    assert torch.allclose(shares.sum(dim=1), torch.ones(16))
    assert ((shares > 0).sum(dim=1) <= 2).all()
    assert len(shares.diagonal().unique()) > 12
    others = shares - shares.diag().diag()
    assert (others > 0).any(dim=0).sum() > 12


def test_mixtures_need_answers_to_them() -> None:
    with pytest.raises(ValidationError, match="set pseudo_labels to each_step"):
        _params(mixup=True)


def test_mixtures_are_answered_by_the_classifier_and_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = PseudoLabels.logits_of

    def logits_of(answers: PseudoLabels, pixels: Tensor) -> Tensor:
        asked.append(pixels)
        return real(answers, pixels)

    monkeypatch.setattr(PseudoLabels, "logits_of", logits_of)
    made = defense(classifier())
    params = refine_params(
        encoder={**ENCODER, "mixup": True, "learns": "probabilities", "epochs": 1}, pseudo_labels="each_step"
    )
    assert params.encoder is not None
    images = synthetic(16)[0]
    answers = PseudoLabels(made.classifier, params.recipe, False, CPU, "fp32")
    head = made.transform.begin(made.classifier, 3, lambda: images)
    train_encoder(params.encoder, 1, made, head, Resident(images, ()), answers, CPU, None)
    levels = torch.cat(asked) * 255
    assert (levels - levels.round()).abs().max() > 0.1
