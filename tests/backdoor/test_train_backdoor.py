"""Training the classifier on what the attacker left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from refine.architectures.airbench.network import Airbench
from refine.backdoor import attacker_augmentation
from refine.backdoor import train as backdoor
from refine.backdoor.attacker_augmentation import AttackerAugmentation, Distortion
from refine.backdoor.params import TrainBackdoorParams
from refine.backdoor.train import BackdoorTask, train_backdoor
from refine.core.errors import UserError
from refine.models import classifier as classifiers
from refine.models.architecture import named
from refine.models.classifier import Normalization
from refine.shards.reading.pixels import to_pixels
from refine.shards.reading.reader import Shards
from refine.shards.reading.tensors import save_tensors
from refine.training.batches import Batch
from refine.training.loop import batches_of
from refine.training.recipe import Augment
from refine.training.training_set import Streamed, open_training_set
from support import synthetic
from tiny import CPU, WIDTH, Poisoned, attack, backdoor_params, badnets, files_of, poisoned, raw, training_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """48 training images of three classes, a quarter of them poisoned."""
    return badnets(tmp_path_factory.mktemp("data"))


def _train(data: Poisoned, folder: Path, part: Path | None = None, seed: int = 1, **recipe: Any) -> None:
    params = backdoor_params(**recipe).model_copy(update={"seed": seed})
    part = part or data.outputs.attack / "training"
    train_backdoor(params, training_set(data.poisoned_train), part, CPU, folder)


def _built(width: int) -> torch.nn.Module:
    return classifiers.build(
        named("resnet18", width=width), 3, Normalization(mean=[0.5] * 3, std=[0.5] * 3), 16
    ).network


def _normalization(data: Poisoned) -> Normalization:
    return Normalization(mean=data.train.manifest.mean, std=data.train.manifest.std)


def test_two_runs_of_one_seed_give_the_same_bytes(data: Poisoned, tmp_path: Path) -> None:
    for name in ("first", "second"):
        _train(data, tmp_path / name, augment={"shift": 2, "flip": 0.5, "crop_scale": 0.8, "grayscale": 0.2})
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")


def test_images_that_are_streamed_train_to_the_same_bytes(data: Poisoned, tmp_path: Path) -> None:
    kept, manifest = open_training_set(data.outputs.train, backdoor.FIELDS, CPU)
    params = backdoor_params(augment={"shift": 2, "flip": 0.5}, shuffle_buffer=20)
    for name, of in (("kept", kept), ("streamed", Streamed(Shards(data.outputs.train), backdoor.FIELDS, 2))):
        train_backdoor(params, (of, manifest), data.outputs.attack / "training", CPU, tmp_path / name)
    assert files_of(tmp_path / "kept") == files_of(tmp_path / "streamed")


def test_a_network_that_wants_to_see_images_first_is_shown_a_batch_of_them(data: Poisoned, tmp_path: Path) -> None:
    params = backdoor_params().model_copy(update={"network": named(name="airbench", width=WIDTH)})
    for name in ("first", "second"):
        folder = data.outputs.attack / "training"
        train_backdoor(params, training_set(data.poisoned_train), folder, CPU, tmp_path / name)
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")
    network = classifiers.load(tmp_path / "first")[0].network
    assert isinstance(network, Airbench)
    batches = batches_of(training_set(data.poisoned_train)[0], params.recipe, CPU)
    again = classifiers.build(named(name="airbench", width=WIDTH), 3, _normalization(data), 16)
    assert isinstance(again.network, Airbench)
    again.network.init_from_data(again.normalize(next(iter(batches.epoch(params.seed))).pixels))
    assert torch.equal(network.whiten.weight, again.network.whiten.weight)


@pytest.mark.parametrize(("batch_size", "remedy"), [(47, "raise batch_size or set drop_last"), (1, "raise batch_size")])
def test_a_lone_image_is_a_sentence_where_the_network_cannot_normalize_it(
    data: Poisoned, tmp_path: Path, batch_size: int, remedy: str
) -> None:
    recipe = backdoor_params(batch_size=batch_size)
    params = recipe.model_copy(update={"network": named(name="airbench", width=WIDTH)})
    with pytest.raises(UserError, match=rf"^train_backdoor\.recipe: .* of the 48 images, .*; {remedy}$"):
        train_backdoor(params, training_set(data.poisoned_train), data.outputs.attack / "training", CPU, tmp_path / "a")


def test_another_seed_gives_other_weights(data: Poisoned, tmp_path: Path) -> None:
    for seed in (1, 2):
        _train(data, tmp_path / str(seed), seed=seed)
    first, second = (files_of(tmp_path / str(seed))["weights.safetensors"] for seed in (1, 2))
    assert first != second


def test_the_folder_holds_a_classifier_for_this_data_set(data: Poisoned, tmp_path: Path) -> None:
    _train(data, tmp_path / "backdoor", epochs=2)
    assert set(files_of(tmp_path / "backdoor")) == {"card.json", "weights.safetensors", "history.csv"}
    made, card = classifiers.load(tmp_path / "backdoor")
    assert card.classes == data.train.manifest.classes
    assert card.normalization == _normalization(data)
    assert card.input_side == 16
    assert card.training["seed"] == 1
    assert card.training["precision"] == "fp32"
    assert card.training["recipe"]["epochs"] == 2
    assert made(to_pixels(data.test.images)).shape == (24, 3)


def test_the_card_names_no_machine_and_no_time(data: Poisoned, tmp_path: Path) -> None:
    _train(data, tmp_path / "backdoor")
    text = (tmp_path / "backdoor/card.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert set(json.loads(text)["training"]) == {"seed", "network", "adaptive", "recipe", "precision"}


def test_the_history_has_a_row_for_each_epoch(data: Poisoned, tmp_path: Path) -> None:
    _train(data, tmp_path / "backdoor", epochs=3)
    with (tmp_path / "backdoor/history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0]) == ["epoch", "learning_rate", "loss", "train_accuracy"]


def test_it_learns_the_labels_that_the_attacker_gave(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", images=48)
    to_two = poisoned(tmp_path / "poisoned", "badnets", attack("badnets", clean[0], rate=0.8, target=2), clean)
    _train(to_two, tmp_path / "backdoor", epochs=2)
    made, _ = classifiers.load(tmp_path / "backdoor")
    assert made(to_pixels(clean[1].images)).argmax(dim=1).tolist() == [2] * 24


def test_it_learns_to_tell_classes_apart(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw", images=48)
    benign = poisoned(tmp_path / "poisoned", "none", attack("none", clean[0]), clean)
    _train(benign, tmp_path / "backdoor", epochs=10)
    made, _ = classifiers.load(tmp_path / "backdoor")
    assert (made(to_pixels(clean[1].images)).argmax(dim=1) == clean[1].labels).float().mean() > 0.9


def _cross_entropy_slowly(logits: Tensor, labels: Tensor, smoothing: float) -> float:
    total = 0.0
    for row, label in zip(logits.double().log_softmax(dim=1).tolist(), labels.tolist(), strict=True):
        for place, value in enumerate(row):
            total -= value * (smoothing / len(row) + (1 - smoothing) * (place == label))
    return total / len(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_first_loss_is_cross_entropy_of_fresh_weights(data: Poisoned, tmp_path: Path, smoothing: float) -> None:
    _train(data, tmp_path / "backdoor", batch_size=48, augment={}, label_smoothing=smoothing)
    torch.manual_seed(1)
    architecture = named(name="resnet18", width=WIDTH)
    fresh = classifiers.build(architecture, 3, _normalization(data), 16)
    logits = fresh.train()(to_pixels(data.poisoned_train.images))
    with (tmp_path / "backdoor/history.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    expected = _cross_entropy_slowly(logits, data.poisoned_train.labels, smoothing)
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)
    right = (logits.argmax(dim=1) == data.poisoned_train.labels).float().mean().item()
    assert float(row["train_accuracy"]) == pytest.approx(right, abs=1e-5)


def test_bfloat16_trains_and_leaves_float32_weights(data: Poisoned, tmp_path: Path) -> None:
    _train(data, tmp_path / "backdoor", precision="bf16")
    made, card = classifiers.load(tmp_path / "backdoor")
    assert card.training["precision"] == "bf16"
    assert all(parameter.dtype == torch.float32 for parameter in made.parameters())


def _seen(part: AttackerAugmentation, flags: Tensor, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What a training step hands on to the recipe's augmentation."""
    seen: list[Tensor] = []

    def augment(pixels: Tensor, *_: object) -> Tensor:
        seen.append(pixels)
        return pixels

    monkeypatch.setattr(backdoor, "augment", augment)
    network = _built(WIDTH).eval()
    task = BackdoorTask(
        classifier=classifiers.Classifier(network, Normalization(mean=[0.5] * 3, std=[0.5] * 3)),
        batches=[],
        recipe=backdoor_params().recipe,
        attack=part,
        compute=CPU,
        precision="fp32",
    )
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    task.generator.manual_seed(3)
    task.step(Batch(to_pixels(images[rows]), (rows % 3, flags[rows].long())))
    back = torch.argsort(rows)
    return seen[0][back]


@pytest.mark.parametrize("which", ["poisoned", "benign", "both", "neither"])
def test_a_distortion_reaches_only_the_images_that_it_is_for(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = synthetic(9)
    flags = torch.tensor([True, False, False, True, False, True, False, False, True])
    mirror, turn = Distortion(flip=1.0), Distortion(degrees=180.0)
    part = AttackerAugmentation(
        poisoned=mirror if which in ("poisoned", "both") else None,
        benign=turn if which in ("benign", "both") else None,
    )
    seen = _seen(part, flags, images, monkeypatch)
    before = to_pixels(images)
    for row, flag in enumerate(flags.tolist()):
        if flag:
            expected = before[row].flip(2) if part.poisoned else before[row]
            torch.testing.assert_close(seen[row], expected)
        else:
            assert torch.equal(seen[row], before[row]) == (part.benign is None)


def test_what_the_attack_does_during_training_changes_the_weights(data: Poisoned, tmp_path: Path) -> None:
    part = tmp_path / "training"
    part.mkdir()
    attacker_augmentation.write(part, AttackerAugmentation(poisoned=Distortion(flip=1.0)))
    _train(data, tmp_path / "with", part)
    _train(data, tmp_path / "without")
    assert files_of(tmp_path / "with") != files_of(tmp_path / "without")


def test_training_starts_from_the_weights_that_the_attacker_gave(data: Poisoned, tmp_path: Path) -> None:
    part = tmp_path / "training"
    part.mkdir()
    torch.manual_seed(99)
    initial = _built(WIDTH).state_dict()
    sha256 = save_tensors(part / attacker_augmentation.WEIGHTS, initial)
    attacker_augmentation.write(part, AttackerAugmentation(initial_weights_sha256=sha256))
    _train(data, tmp_path / "backdoor", part, optimizer={"lr": 1e-30, "weight_decay": 0.0})
    made, _ = classifiers.load(tmp_path / "backdoor")
    for name, parameter in made.network.named_parameters():
        torch.testing.assert_close(parameter.data, initial[name], rtol=0, atol=1e-20)


@pytest.mark.parametrize("fault", ["missing", "changed", "other width"])
def test_initial_weights_that_cannot_be_used_are_refused(data: Poisoned, tmp_path: Path, fault: str) -> None:
    part = tmp_path / "training"
    part.mkdir()
    path = part / attacker_augmentation.WEIGHTS
    sha256 = save_tensors(path, _built(16 if fault == "other width" else WIDTH).state_dict())
    attacker_augmentation.write(part, AttackerAugmentation(initial_weights_sha256=sha256))
    if fault == "missing":
        path.unlink()
    if fault == "changed":
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"initial\.safetensors"):
        _train(data, tmp_path / "backdoor", part)
    assert not (tmp_path / "backdoor").exists()


def test_a_network_of_torchvision_is_trained_and_loaded_again(data: Poisoned, tmp_path: Path) -> None:
    network = named("torchvision", model="shufflenet_v2_x0_5")
    params = backdoor_params().model_copy(update={"network": network})
    given = training_set(data.poisoned_train), data.outputs.attack / "training", CPU, tmp_path / "backdoor"
    train_backdoor(params, *given)
    loaded, card = classifiers.load(tmp_path / "backdoor")
    assert card.architecture == network
    assert loaded(torch.rand(2, 3, 16, 16)).shape == (2, 3)


def test_an_unknown_network_is_refused_with_its_place() -> None:
    content = {**backdoor_params().model_dump(exclude={"imported"}), "network": {"name": "vgg"}}
    with pytest.raises(ValidationError) as refused:
        TrainBackdoorParams.model_validate(content)
    assert refused.value.errors()[0]["loc"] == ("network", "name")
    assert "'vgg' is not known" in str(refused.value)


def test_a_run_that_fails_leaves_the_classifier_of_the_last_one(data: Poisoned, tmp_path: Path) -> None:
    _train(data, tmp_path / "backdoor")
    before = files_of(tmp_path)
    with pytest.raises(UserError, match="the loss became"):
        _train(data, tmp_path / "backdoor", epochs=20, optimizer={"lr": 1e6})
    assert files_of(tmp_path) == before


def test_the_published_augmentation_is_the_flip_alone() -> None:
    assert backdoor_params().recipe.augment == Augment(flip=0.5)
