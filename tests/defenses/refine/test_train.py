"""Training the transform: no label is used, and nothing else changes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.defenses.refine import defense as refine
from refine.defenses.refine.defense import InputSpace, Refine
from refine.defenses.refine.model.label_map import derangement
from refine.defenses.refine.model.transforms.unet.transform import UNet
from refine.defenses.refine.training import train as training
from refine.defenses.refine.training.params import Form
from refine.defenses.refine.training.train import RefineTask, snapshot_epochs, train_refine, unlabeled
from refine.models import classifier as classifiers
from refine.shards.reading.pixels import to_pixels
from refine.shards.reading.reader import Shards
from refine.shards.reading.tensors import load_tensors
from refine.training.loop import Run
from refine.training.order import Part
from refine.training.training_set import Resident, Streamed, TrainingSet, open_training_set
from support import synthetic, write_split
from tiny import ALL_CHANGES, CPU, WIDTH, classifier_folder, files_of, history, refine_params, same_tensors

SPACES: list[InputSpace] = ["pixel", "normalized_clamp01"]
ENCODER = {"epochs": 2, "batch_size": 8, "shuffle_buffer": 20, "augment": {"flip": 0.5}}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "asked once": {"pseudo_labels": "once"},
    "encoder first": {"encoder": ENCODER},
    "encoder first, asked once": {"encoder": ENCODER, "pseudo_labels": "once"},
    "encoder with statistics of its own": {"encoder": {**ENCODER, "frozen": True, "precise_statistics": True}},
    "encoder against a perturbation": {"encoder": {**ENCODER, "universal_perturbation": 0.05}},
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that was not trained by our stage."""
    folder = tmp_path_factory.mktemp("models") / "by-hand"
    classifier_folder(folder)
    return folder


@pytest.fixture(scope="module")
def images() -> Tensor:
    """48 benign images."""
    return synthetic(48)[0]


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> list[RefineTask]:
    """The tasks that were trained, as they were left."""
    tasks: list[RefineTask] = []

    class Watched(Run):
        def __init__(self, given: RefineTask, *rest: Any) -> None:
            tasks.append(given)
            super().__init__(given, *rest)

    monkeypatch.setattr(training, "Run", Watched)
    return tasks


def _train(
    folder: Path, classifier: Path, images: Tensor, recipe: dict[str, Any] | None = None, **changes: Any
) -> dict[str, str]:
    train_refine(refine_params(recipe, **changes), Resident(images, ()), classifier, CPU, folder)
    return files_of(folder)


def test_the_classifier_is_the_same_after_training_batch_statistics_included(
    classifier: Path, images: Tensor, tmp_path: Path, task: list[RefineTask]
) -> None:
    before, _ = classifiers.load(classifier)
    files = files_of(classifier)
    _train(tmp_path / "refine", classifier, images)
    after = task[0].defense.classifier
    assert any("running_mean" in name for name in after.network.state_dict())
    assert same_tensors(before.network.state_dict(), after.network.state_dict())
    assert torch.equal(before.mean, after.mean)
    assert not any(module.training for module in after.modules())
    assert files_of(classifier) == files


def test_only_the_transform_changes(classifier: Path, images: Tensor, tmp_path: Path, task: list[RefineTask]) -> None:
    _train(tmp_path / "refine", classifier, images)
    defense = task[0].defense
    torch.manual_seed(1)
    fresh = UNet(WIDTH)
    for name, parameter in defense.transform.named_parameters():
        assert not torch.equal(parameter, fresh.get_parameter(name)), name
    assert torch.equal(defense.permutation, derangement(3, 666))
    trained = {id(parameter) for parameter in task[0].module.parameters()}
    assert trained == {id(parameter) for parameter in defense.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_true_labels_leave_no_trace(classifier: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    images, labels = synthetic(48)
    trained = []
    for name, given in (("true", labels), ("false", labels.roll(5)), ("one", torch.zeros_like(labels))):
        write_split(tmp_path / name, images, given)
        seen, _ = open_training_set(tmp_path / name, (), CPU)
        params = refine_params({"augment": ALL_CHANGES}, **changes)
        train_refine(params, seen, classifier, CPU, tmp_path / f"for-{name}")
        trained.append(files_of(tmp_path / f"for-{name}"))
    assert trained[0] == trained[1] == trained[2]


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_images_that_are_streamed_train_to_the_same_bytes(
    classifier: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    write_split(tmp_path / "images", *synthetic(48))
    kept, _ = open_training_set(tmp_path / "images", (), CPU)
    params = refine_params({"augment": ALL_CHANGES, "shuffle_buffer": 20}, unlabeled_fraction=0.9, **changes)
    for name, of in (("kept", kept), ("streamed", Streamed(Shards(tmp_path / "images", only_images=True), (), 2))):
        train_refine(params, of, classifier, CPU, tmp_path / name)
    assert files_of(tmp_path / "kept") == files_of(tmp_path / "streamed")


def test_two_runs_of_one_seed_give_the_same_bytes_and_another_seed_does_not(
    classifier: Path, images: Tensor, tmp_path: Path
) -> None:
    recipe = {"augment": ALL_CHANGES}
    runs = [_train(tmp_path / str(run), classifier, images, recipe, seed=seed) for run, seed in enumerate((1, 1, 2))]
    assert runs[0] == runs[1]
    assert runs[0]["weights.safetensors"] != runs[2]["weights.safetensors"]


def _first_loss_slowly(defense: Refine, images: Tensor, weight: float, temperature: float) -> dict[str, float]:
    """The whole loss for one batch without augmentation, element by element and view by view."""
    pixels = to_pixels(images).contiguous()
    normal, network = defense.classifier.normalize, defense.classifier.network
    pseudo = network(normal(pixels)).argmax(dim=1).tolist()
    if defense.input_space == "pixel":
        z = defense.transform(pixels).clamp(0, 1)
        p = network(normal(z)).softmax(dim=1).double()
    else:
        z = defense.transform(normal(pixels)).clamp(0, 1)
        p = network(z).softmax(dim=1).double()
    q = torch.zeros_like(p)
    for label, place in enumerate(defense.permutation.tolist()):
        q[:, place] = p[:, label]
    bce = 0.0
    for row, label in zip(q.tolist(), pseudo, strict=True):
        for place, value in enumerate(row):
            bce -= max(math.log(value if place == label else 1 - value), -100)
    rows = [vector / vector.norm() for vector in z.double().flatten(1)] * 2
    similarity = (torch.stack(rows) @ torch.stack(rows).T / temperature).tolist()
    contrast = 0.0
    for i, scores in enumerate(similarity):
        below = math.log(sum(math.exp(score) for a, score in enumerate(scores) if a != i))
        positives = [a for a in range(len(rows)) if a != i and (pseudo * 2)[a] == (pseudo * 2)[i]]
        contrast -= sum(scores[a] - below for a in positives) / len(positives) / len(rows)
    utility, supcon = bce / q.numel(), contrast * temperature / 0.07
    agreement = sum(row.index(max(row)) == label for row, label in zip(q.tolist(), pseudo, strict=True)) / len(pseudo)
    return {
        "loss": utility + weight * supcon,
        "utility": utility,
        "supcon": supcon,
        "agreement": agreement,
        "clamped_low": (z <= 0).double().mean().item(),
        "clamped_high": (z >= 1).double().mean().item(),
    }


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("weight", "temperature"), [(0.1, 0.07), (0.5, 0.2)])
def test_the_first_loss_is_the_one_of_the_definition(
    classifier: Path, images: Tensor, tmp_path: Path, space: InputSpace, weight: float, temperature: float
) -> None:
    one_step = {"epochs": 1, "batch_size": 24, "augment": {}, "drop_last": False}
    loss = {"supcon_weight": weight, "supcon_temperature": temperature}
    _train(tmp_path / "refine", classifier, images[:24], one_step, input_space=space, snapshots=1, loss=loss)
    (row,) = history(tmp_path / "refine")
    loaded, _ = classifiers.load(classifier)
    torch.manual_seed(1)
    fresh = Refine(loaded, UNet(WIDTH), derangement(3, 666), space).train()
    with torch.no_grad():
        expected = _first_loss_slowly(fresh, images[:24], weight, temperature)
    assert list(row) == ["epoch", "learning_rate", *expected]
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=2e-4, abs=1e-5), name


@pytest.mark.parametrize("space", SPACES)
def test_both_input_spaces_learn(classifier: Path, images: Tensor, tmp_path: Path, space: InputSpace) -> None:
    recipe = {"epochs": 10, "augment": {}, "optimizer": {"name": "adamw", "lr": 0.003, "weight_decay": 0.01}}
    _train(tmp_path / "refine", classifier, images, recipe, input_space=space)
    rows = history(tmp_path / "refine")
    assert rows[-1]["utility"] < 0.6 * rows[0]["utility"]
    assert rows[-1]["agreement"] > rows[0]["agreement"]
    assert refine.load(tmp_path / "refine", classifier).input_space == space


def test_pseudo_labels_come_from_the_augmented_image(
    classifier: Path, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = torch.full((8, 3, 16, 16), 0.9)
    seen: list[Tensor] = []
    loaded, _ = classifiers.load(classifier)
    real = training.utility

    def watched(remapped: Tensor, pseudo_labels: Tensor, form: Form) -> Tensor:
        seen.append(pseudo_labels)
        return real(remapped, pseudo_labels, form)

    monkeypatch.setattr(training, "augment", lambda pixels, *_: constant[: len(pixels)])
    monkeypatch.setattr(training, "utility", watched)
    _train(tmp_path / "refine", classifier, images[:8], {"epochs": 1})
    assert torch.equal(seen[0], loaded(constant).argmax(dim=1))
    assert not torch.equal(seen[0], loaded(to_pixels(images[:8])).argmax(dim=1))


@pytest.mark.parametrize(
    ("epochs", "snapshots", "kept"),
    [(150, 5, [30, 60, 90, 120, 150]), (10, 5, [2, 4, 6, 8, 10]), (2, 5, [1, 2]), (7, 3, [3, 5, 7]), (9, 1, [9])],
)
def test_snapshots_are_evenly_spaced_and_end_with_the_last_epoch(epochs: int, snapshots: int, kept: list[int]) -> None:
    assert snapshot_epochs(epochs, snapshots) == kept


def test_the_folder_holds_the_snapshots_that_its_card_lists(classifier: Path, images: Tensor, tmp_path: Path) -> None:
    files = _train(tmp_path / "refine", classifier, images, {"epochs": 4}, snapshots=2)
    card = json.loads((tmp_path / "refine/card.json").read_text(encoding="utf-8"))
    assert [entry["epoch"] for entry in card["snapshots"]] == [2, 4]
    named = {entry["file"]: entry["sha256"] for entry in card["snapshots"]}
    assert set(files) == {"card.json", "weights.safetensors", "history.csv", "encoder_history.csv", *named}
    assert all(sha256_of(tmp_path / "refine" / file) == sha256 for file, sha256 in named.items())
    assert files["snapshots/epoch-0004.safetensors"] == files["weights.safetensors"]
    assert files["snapshots/epoch-0002.safetensors"] != files["weights.safetensors"]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_snapshot_is_the_state_after_its_epoch_and_not_later(
    classifier: Path, images: Tensor, tmp_path: Path, average: float
) -> None:
    constant = {"schedule": {"milestones": []}, "augment": ALL_CHANGES, "average": average}
    long = _train(tmp_path / "long", classifier, images, {"epochs": 3, **constant}, snapshots=3)
    short = _train(tmp_path / "short", classifier, images, {"epochs": 1, **constant}, snapshots=1)
    assert long["snapshots/epoch-0001.safetensors"] == short["weights.safetensors"]
    assert long["snapshots/epoch-0003.safetensors"] == long["weights.safetensors"]


def test_the_card_tells_what_was_trained_for_which_classifier(classifier: Path, images: Tensor, tmp_path: Path) -> None:
    _train(tmp_path / "refine", classifier, images)
    card = json.loads((tmp_path / "refine/card.json").read_text(encoding="utf-8"))
    assert card["classifier_sha256"] == sha256_of(classifier / "weights.safetensors")
    assert card["training"]["permutation_seed"] == 666
    assert card["training"]["precision"] == "fp32"
    assert card["training"]["recipe"]["batch_size"] == 8
    assert str(tmp_path) not in (tmp_path / "refine/card.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("fraction", "batches"), [(1.0, 6), (0.5, 3), (0.2, 1)])
def test_the_share_of_images_that_the_defender_has_can_be_chosen(
    classifier: Path, images: Tensor, tmp_path: Path, task: list[RefineTask], fraction: float, batches: int
) -> None:
    _train(tmp_path / "refine", classifier, images, unlabeled_fraction=fraction)
    assert len(task[0].batches) == batches


def _values(of: TrainingSet) -> list[int]:
    """The images of a set, told apart by their color, in their order."""
    parts = [Part(number, 0, size) for number, size in enumerate(of.sizes)]
    images = [of.delivered(block, CPU)[0] for block in of.blocks(parts)]
    return torch.cat(images)[:, 0, 0, 0].tolist()


def test_a_share_is_drawn_without_repetition_and_by_the_seed() -> None:
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1).expand(100, 3, 2, 2)
    whole = Resident(images, (), sizes=[30, 30, 40])
    first, again, other = (unlabeled(whole, 0.2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert sum(first.sizes) == len(set(_values(first))) == 20
    assert _values(first) == _values(again)
    assert _values(first) != _values(other)
    assert unlabeled(whole, 1.0, torch.Generator()) is whole


def test_a_share_without_any_image_is_refused() -> None:
    images = Resident(torch.zeros(100, 3, 2, 2, dtype=torch.uint8), ())
    with pytest.raises(UserError, match=r"unlabeled_fraction 0\.004 of 100 images is none; raise it"):
        unlabeled(images, 0.004, torch.Generator())


def test_the_form_of_the_utility_is_what_the_parameters_say(classifier: Path, images: Tensor, tmp_path: Path) -> None:
    first = {}
    for form in ("binary", "categorical"):
        loss = {"utility": form, "supcon_weight": 0.0}
        _train(tmp_path / form, classifier, images, {"epochs": 1, "optimizer": {"lr": 1e-9}}, loss=loss)
        first[form] = history(tmp_path / form)[0]
    assert first["categorical"]["utility"] > 1.5 * first["binary"]["utility"]  # three classes, one of them wanted
    assert first["categorical"]["agreement"] == first["binary"]["agreement"]


def test_the_output_begins_where_it_is_asked_to(classifier: Path, images: Tensor, tmp_path: Path) -> None:
    low = {}
    for begin in (0.0, 0.5):
        recipe = {"epochs": 1, "optimizer": {"lr": 1e-9}}
        _train(tmp_path / str(begin), classifier, images, recipe, initial_output=begin)
        low[begin] = history(tmp_path / str(begin))[0]["clamped_low"]
    assert low[0.5] < 0.5 * low[0.0]


def test_with_little_contrast_few_values_begin_at_the_clamp(classifier: Path, images: Tensor, tmp_path: Path) -> None:
    clamped = {}
    for contrast in (1.0, 0.01):
        recipe = {"epochs": 1, "optimizer": {"lr": 1e-9}}
        begin = {"initial_output": 0.5, "initial_contrast": contrast}
        _train(tmp_path / str(contrast), classifier, images, recipe, **begin)
        first = history(tmp_path / str(contrast))[0]
        clamped[contrast] = first["clamped_low"] + first["clamped_high"]
    assert clamped[0.01] == 0 < clamped[1.0]


def test_without_the_contrastive_term_the_loss_is_the_utility(classifier: Path, images: Tensor, tmp_path: Path) -> None:
    _train(tmp_path / "refine", classifier, images, loss={"supcon_weight": 0.0})
    for row in history(tmp_path / "refine"):
        assert "supcon" not in row
        assert row["loss"] == row["utility"]


def test_bfloat16_trains_and_leaves_float32_weights(classifier: Path, images: Tensor, tmp_path: Path) -> None:
    params = refine_params({"precision": "bf16"})
    train_refine(params, Resident(images, ()), classifier, CPU, tmp_path / "refine")
    card = json.loads((tmp_path / "refine/card.json").read_text(encoding="utf-8"))
    assert card["training"]["precision"] == "bf16"
    tensors = load_tensors(tmp_path / "refine/weights.safetensors", card["weights_sha256"], "")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}
    assert all(math.isfinite(value) for row in history(tmp_path / "refine") for value in row.values())


def test_images_of_another_size_than_the_classifiers_are_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"by-hand takes images of 16 pixels, the data set has 32"):
        _train(tmp_path / "refine", classifier, synthetic(16, side=32)[0])
    assert not (tmp_path / "refine").exists()


def test_a_damaged_classifier_is_refused(classifier: Path, images: Tensor, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(classifier, tmp_path / "damaged"))
    (damaged / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"damaged/weights\.safetensors"):
        _train(tmp_path / "refine", damaged, images)


def test_a_lone_image_at_the_end_of_an_epoch_is_a_sentence_where_the_transform_cannot_normalize_it(
    classifier: Path, images: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^train_refine\.recipe: .*raise batch_size or set drop_last"):
        _train(tmp_path / "refine", classifier, images[:17], {"drop_last": False})
    _train(tmp_path / "dropped", classifier, images[:17], {"drop_last": True})
    _train(tmp_path / "two", classifier, images[:18], {"drop_last": False})


def test_where_the_encoder_is_frozen_before_only_its_own_training_needs_two_images(
    classifier: Path, images: Tensor, tmp_path: Path
) -> None:
    first = {**ENCODER, "frozen": True, "drop_last": True}
    _train(tmp_path / "refine", classifier, images[:17], {"drop_last": False}, encoder=first)
    with pytest.raises(UserError, match=r"^train_refine\.encoder: .*raise batch_size or set drop_last"):
        _train(tmp_path / "refused", classifier, images[:17], encoder={**first, "drop_last": False})


def test_a_lone_image_of_32_pixels_trains(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier", side=32)
    _train(
        tmp_path / "refine", tmp_path / "classifier", synthetic(5, side=32)[0], {"drop_last": False, "batch_size": 4}
    )
    assert len(history(tmp_path / "refine")) == 2


def test_another_permutation_seed_gives_another_label_map(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier", classes=6)
    images, _ = synthetic(16, classes=6)
    maps = []
    for seed in (666, 1):
        _train(tmp_path / str(seed), tmp_path / "classifier", images, permutation_seed=seed)
        maps.append(refine.load(tmp_path / str(seed), tmp_path / "classifier").permutation.tolist())
    assert maps == [derangement(6, seed).tolist() for seed in (666, 1)]
    assert maps[0] != maps[1]
