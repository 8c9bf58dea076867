"""What holds for every defense of the room, those of tomorrow included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from refine.core.errors import UserError
from refine.core.params import Section
from refine.core.registry import DEFENSES, component, names
from refine.defending import given, loading
from refine.defending.material import IMAGES
from refine.defending.params import DefenseDataParams, split_of
from refine.defending.protocol.defense import Defense, Regime
from refine.defending.train import train_defense
from refine.deployment.export import graph
from refine.deployment.model import load
from support import synthetic
from tiny import CPU, SMALL_DEFENSES, attack, classifier_folder, defense_folder, poisoned, raw, split_folder


@pytest.fixture(scope="module", params=names(DEFENSES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A defense by name, and a folder with a `classifier` and its `defense`."""
    name, folder = str(request.param), tmp_path_factory.mktemp("made")
    classifier_folder(folder / "classifier")
    if name == "refine":
        defense_folder(folder / "defense", folder / "classifier")
        return name, folder
    clean = raw(folder / "raw")
    outputs = poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0], rate=0.2), clean).outputs
    module = component(DEFENSES, name, "a test")
    sources = {"raw": folder / "raw/train", "poisoned": outputs.train, "defender": outputs.defender}
    sources["split"] = folder / "split"
    data = DefenseDataParams(seed=1, labeled=0.5)
    settings = module.Params.model_validate(SMALL_DEFENSES.get(name, {}))
    if split_of(settings):
        split_folder(folder / "split" / str(split_of(settings)), outputs.train, alpha_c=0.3, alpha_p=0.2)
    given.give(name, module.Defended.regime, settings, data, sources, folder / "given")
    before = _contents(folder / "classifier")
    train_defense(name, folder / "given", folder / "classifier", CPU, folder / "defense")
    assert _contents(folder / "classifier") == before
    return name, folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _load(folder: Path) -> Defense:
    return loading.load(folder / "defense", folder / "classifier")


def test_it_declares_what_it_is(made: tuple[str, Path]) -> None:
    module: Any = component(DEFENSES, made[0], "a test")
    assert issubclass(module.Defended, Defense)
    assert module.Defended.regime in get_args(Regime)
    assert module.Defended.title
    assert made[0] == "refine" or issubclass(module.Params, Section)


@torch.no_grad()
def test_it_answers_each_image_by_itself(made: tuple[str, Path]) -> None:
    defense, images = _load(made[1]), synthetic(9)[0] / 255
    assert not defense.training
    logits, probabilities = defense(images), defense.probabilities(images)
    assert logits.shape == probabilities.shape == (9, 3)
    torch.testing.assert_close(logits.softmax(dim=1), probabilities, rtol=1e-4, atol=1e-5)
    alone = torch.cat([defense.probabilities(image[None]) for image in images.flip(0)]).flip(0)
    torch.testing.assert_close(alone, probabilities, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_it_answers_the_same_when_it_is_loaded_again(made: tuple[str, Path]) -> None:
    images = synthetic(6)[0] / 255
    assert torch.equal(_load(made[1])(images), _load(made[1])(images))


@torch.no_grad()
def test_it_can_be_written_as_a_graph_or_says_why_not(made: tuple[str, Path]) -> None:
    model = load(made[1] / "classifier", made[1] / "defense", "cpu")
    if made[0] in ("local_mae", "shrinkpad"):
        with pytest.raises(
            UserError, match=f"{model.system.title} computes something that cannot be written as a graph"
        ):
            graph(model)
        return
    images = synthetic(9)[0] / 255
    torch.testing.assert_close(graph(model).module()(images), model.system.probabilities(images), rtol=1e-4, atol=1e-5)


def test_it_belongs_to_its_classifier(made: tuple[str, Path], tmp_path: Path) -> None:
    classifier_folder(tmp_path / "other", seed=5)
    with pytest.raises(UserError, match="was trained for another classifier"):
        loading.load(made[1] / "defense", tmp_path / "other")


def test_a_classifier_is_no_defense(made: tuple[str, Path]) -> None:
    known = ", ".join(names(DEFENSES))
    with pytest.raises(UserError, match=f"holds 'classifier', which is no defense; known are {known}"):
        loading.load(made[1] / "classifier", made[1] / "classifier")


def test_what_was_given_to_another_defense_is_refused(made: tuple[str, Path], tmp_path: Path) -> None:
    if made[0] == "refine":  # has a stage of its own
        return
    content = json.loads((made[1] / "given/given.json").read_text(encoding="utf-8"))
    (tmp_path / "given").mkdir()
    (tmp_path / "given/given.json").write_text(json.dumps({**content, "defense": "another"}), encoding="utf-8")
    with pytest.raises(UserError, match=f"was made for 'another'; run `dvc repro give-data@{made[0]}`"):
        train_defense(made[0], tmp_path / "given", made[1] / "classifier", CPU, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_snapshots_end_with_the_final_state(made: tuple[str, Path]) -> None:
    epochs = loading.snapshots(made[1] / "defense")
    assert epochs == sorted(set(epochs))
    assert made[0] != "refine" or epochs == [1, 2]


def test_images_of_another_size_are_refused(made: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = made
    if name == "refine" or not (folder / "given" / IMAGES).is_dir():
        pytest.skip("it is given no images by this way")
    classifier_folder(tmp_path / "classifier", side=20)
    with pytest.raises(UserError, match="of 16 pixels, the classifier takes 20; give images that it was made for"):
        train_defense(name, folder / "given", tmp_path / "classifier", CPU, tmp_path / "defense")
    assert not (tmp_path / "defense").exists()
