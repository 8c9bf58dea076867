"""What all fine-tuning defenses share: their images, their recipe, and that they can go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetuned import ARCHITECTURES, batch, state, task
from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.core.registry import DEFENSES, TRAINING, component, part
from refine.defending.finetuning import accuracy, cross_entropy, labeled_images, labels_of
from refine.models.card import WEIGHTS
from refine.training.checkpoint import Checkpoints
from refine.training.order import Part
from support import synthetic
from tiny import history, same_tensors

NAMES = ["d3", "fst", "ft", "ft_sam"]
BRIEF: dict[str, Any] = {"recipe": {"epochs": 2, "batch_size": 8, "optimizer": {"lr": 0.001}}}


def _train(name: str) -> Any:
    return part(DEFENSES, name, TRAINING).train  # type: ignore[union-attr]


def test_images_come_with_their_own_labels(tmp_path: Path) -> None:
    images = labeled_images(task(tmp_path, "ft", {}))
    parts = [Part(number, 0, size) for number, size in enumerate(images.sizes)]
    blocks = [images.delivered(block, torch.device("cpu")) for block in images.blocks(parts)]
    shown, labels = synthetic(12)
    assert torch.equal(torch.cat([block[0] for block in blocks]), shown)
    assert torch.equal(torch.cat([block[1] for block in blocks]), labels)


@pytest.mark.parametrize(
    ("of_images", "sentence"),
    [({"classes": 2}, "of 2 classes, the classifier knows 3"), ({"side": 20}, "of 20 pixels, the classifier takes 16")],
)
def test_images_of_another_kind_are_refused(tmp_path: Path, of_images: dict[str, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        labeled_images(task(tmp_path, "ft", {}, **of_images))


def test_loss_and_accuracy_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    shown = batch(3)
    assert labels_of(shown).tolist() == [0, 1, 2]
    terms = cross_entropy(logits, shown.pixels, shown)
    each = [-logits[row].log_softmax(0)[row] for row in range(3)]
    torch.testing.assert_close(terms["loss"], sum(each) / 3)
    assert terms["accuracy"] == accuracy(logits, labels_of(shown)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", NAMES)
def test_published_recipes(name: str) -> None:
    recipe = component(DEFENSES, name, "a test").Params().recipe
    is_fst = name == "fst"
    assert recipe.place == f"defense_settings.{name}.recipe"
    assert (recipe.epochs, recipe.batch_size, recipe.drop_last) == ((10, 128, False) if is_fst else (100, 256, False))
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.01, 0.9, False)
    assert optimizer.weight_decay == (0.0 if name in ("fst", "d3") else 5e-4)
    assert recipe.schedule.name == ("oscillating" if name == "ft_sam" else "cosine")
    assert recipe.schedule.period == 100
    assert (recipe.augment.shift, recipe.augment.flip, recipe.augment.crop_scale) == (4, 0.5, 1.0)
    assert component(DEFENSES, name, "a test").Params().batch_statistics


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_trained_and_the_given_classifier_stays(
    tmp_path: Path, name: str, architecture: str
) -> None:
    given = task(tmp_path, name, BRIEF, architecture)
    before = state(given.classifier)
    assert _train(name)(given) == sha256_of(tmp_path / "out" / WEIGHTS)
    assert same_tensors(before, state(given.classifier))
    rows = history(tmp_path / "out")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_running_statistics_move_only_where_they_should(tmp_path: Path, name: str) -> None:
    given = task(tmp_path, name, {**BRIEF, "batch_statistics": False})
    _train(name)(given)
    kept, before = _saved(tmp_path), state(given.classifier.network)
    _train(name)(task(tmp_path, name, BRIEF))
    moved = _saved(tmp_path)
    names = [key for key in before if "running" in key]
    assert all(torch.equal(kept[key], before[key]) for key in names)
    assert not any(torch.equal(moved[key], before[key]) for key in names)


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_training_goes_on_to_the_same_weights(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(name)(task(tmp_path, name, BRIEF))
    (tmp_path / "checkpoints").mkdir()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    stopped = task(tmp_path, name, BRIEF, checkpoints=checkpoints)
    with monkeypatch.context() as patch:
        patch.setattr("refine.training.loop.Run._tell", _interrupt)
        with pytest.raises(KeyboardInterrupt, match="interrupted after 1 of 2 epochs"):
            _train(name)(stopped)
    assert _train(name)(stopped) == whole


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _saved(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(folder / "out" / WEIGHTS)
    return loaded
