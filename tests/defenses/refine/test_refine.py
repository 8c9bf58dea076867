"""The defense as one module, and its folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.defenses.refine import defense as refine
from refine.defenses.refine.card import InputSpace, RefineCard
from refine.defenses.refine.model.label_map import derangement
from refine.models.card import read_card
from tiny import MEAN, STD, classifier, classifier_folder, defense, defense_folder, files_of, same_tensors

SPACES: list[InputSpace] = ["pixel", "normalized_clamp01"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier and a defense of it."""
    folder = tmp_path_factory.mktemp("models")
    classifier_folder(folder / "classifier")
    defense_folder(folder / "refine", folder / "classifier")
    return folder


@pytest.fixture
def models(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "models"))


def _load(models: Path, epoch: int | None = None) -> refine.Refine:
    return refine.load(models / "refine", models / "classifier", epoch)


def _edit(models: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = models / "refine/card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    change(card)
    path.write_text(json.dumps(card), encoding="utf-8")


def _replace_weights(models: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = models / "refine/weights.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    _edit(models, lambda card: card.update(weights_sha256=sha256_of(path)))


def _channelwise(images: Tensor, function: Callable[[Tensor, float, float], Tensor]) -> Tensor:
    return torch.stack([function(images[:, c], MEAN[c], STD[c]) for c in range(3)], dim=1)


def _slowly(made: refine.Refine, pixels: Tensor, space: InputSpace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures, raw logits, remapped logits and remapped probabilities, written out from the formulas."""
    if space == "pixel":
        z = made.transform(pixels).clamp(0, 1)
        pictures = z
        raw = made.classifier.network(_channelwise(z, lambda x, mean, std: (x - mean) / std))
    else:
        z = made.transform(_channelwise(pixels, lambda x, mean, std: (x - mean) / std)).clamp(0, 1)
        pictures = _channelwise(z, lambda x, mean, std: x * std + mean)
        raw = made.classifier.network(z)
    p = raw.softmax(dim=1)
    logits, q = torch.zeros_like(raw), torch.zeros_like(p)
    for label, place in enumerate(made.permutation.tolist()):
        logits[:, place] = raw[:, label]
        q[:, place] = p[:, label]
    return pictures, raw, logits, q


@pytest.mark.parametrize("space", SPACES)
@torch.no_grad()
def test_it_computes_what_the_definition_says(space: InputSpace) -> None:
    made = defense(classifier(), space=space)
    pixels = torch.rand(5, 3, 16, 16)
    pictures, raw, logits, probabilities = _slowly(made, pixels, space)
    torch.testing.assert_close(made.pictures(pixels), pictures, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made.logits(made.transformed(pixels)), raw, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made(pixels), logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.probabilities(pixels), probabilities, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made(pixels).softmax(dim=1), made.probabilities(pixels))
    assert not torch.allclose(logits, raw, atol=1e-2)


def test_labels_are_mapped_as_the_permutation_says_and_back() -> None:
    made = defense(classifier(5), 5)
    labels = torch.arange(5)
    inside = torch.eye(5)
    assert torch.equal(made.mapped(inside).argmax(dim=1), made.permutation)
    assert torch.equal(made.unmapped(made.permutation), labels)
    assert torch.equal(made.unmapped(made.mapped(inside).argmax(dim=1)), labels)
    assert not torch.equal(made.permutation, torch.argsort(made.permutation)), "both directions would be the same"


@torch.no_grad()
def test_the_input_spaces_are_not_the_same() -> None:
    pixels = torch.rand(5, 3, 16, 16)
    first, second = (defense(classifier(), space=space).probabilities(pixels) for space in SPACES)
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("space", SPACES)
@torch.no_grad()
def test_answers_are_probabilities_and_pictures_are_pixels(space: InputSpace) -> None:
    made = defense(classifier(), space=space)
    made.transform.outlet.weight.mul_(50)
    pixels = torch.rand(6, 3, 16, 16)
    answers, pictures, images = made.probabilities(pixels), made.pictures(pixels), made.transformed(pixels)
    torch.testing.assert_close(answers.sum(dim=1), torch.ones(6))
    assert made(pixels).min() < 0
    assert answers.min() >= 0
    assert pictures.shape == pixels.shape
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert (images.min(), images.max()) == (0, 1)


def test_the_classifier_stays_in_eval_mode_and_frozen_whatever_happens() -> None:
    made = defense(classifier())
    for switched in (made.train(), made.train(True), made.eval().train()):
        assert switched is made
        assert made.transform.training
        assert not any(module.training for module in made.classifier.modules())
    assert not made.eval().transform.training
    assert not any(parameter.requires_grad for parameter in made.classifier.parameters())
    assert all(parameter.requires_grad for parameter in made.transform.parameters())


def test_gradients_reach_the_transform_through_the_frozen_classifier() -> None:
    made = defense(classifier()).train()
    before = {name: tensor.clone() for name, tensor in made.classifier.network.state_dict().items()}
    made(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    assert made.transform.outlet.weight.grad is not None
    assert made.transform.outlet.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in made.classifier.parameters())
    assert same_tensors(before, made.classifier.network.state_dict())


def test_a_trainable_classifier_given_to_a_defense_is_frozen() -> None:
    given = classifier().train().requires_grad_(True)
    made = defense(given)
    assert not any(parameter.requires_grad for parameter in made.classifier.parameters())
    assert not any(module.training for module in made.classifier.modules())


@torch.no_grad()
def test_a_loaded_defense_gives_identical_answers(models: Path, tmp_path: Path) -> None:
    made = defense_folder(tmp_path / "again", models / "classifier")
    pixels = torch.rand(5, 3, 16, 16)
    assert torch.equal(_load(models)(pixels), made(pixels))
    assert torch.equal(_load(models).probabilities(pixels), made.probabilities(pixels))
    assert files_of(tmp_path / "again") == files_of(models / "refine")


@torch.no_grad()
def test_a_loaded_defense_is_in_eval_mode_so_that_an_answer_does_not_depend_on_its_batch(models: Path) -> None:
    made = _load(models)
    assert not any(module.training for module in made.modules())
    pixels = torch.rand(6, 3, 16, 16)
    alone = torch.cat([made.probabilities(pixels[row : row + 1]) for row in range(6)])
    torch.testing.assert_close(made.probabilities(pixels), alone, rtol=1e-4, atol=1e-5)


def test_the_card_says_which_way_the_permutation_goes(models: Path) -> None:
    card = json.loads((models / "refine/card.json").read_text(encoding="utf-8"))
    assert card["permutation_direction"] == "probability of class j moves to class permutation[j]"
    assert card["kind"] == "refine"
    assert card["num_classes"] == 3
    assert card["input_space"] == "pixel"
    assert card["classifier_sha256"] == sha256_of(models / "classifier/weights.safetensors")
    assert torch.equal(load_file(models / "refine/weights.safetensors")["permutation"], derangement(3, 666))


def test_the_folder_holds_no_weights_of_the_classifier(models: Path) -> None:
    names = set(load_file(models / "refine/weights.safetensors"))
    assert all(name == "permutation" or name.startswith("transform.") for name in names)


@torch.no_grad()
def test_a_snapshot_is_the_state_after_its_epoch(models: Path) -> None:
    pixels = torch.rand(3, 3, 16, 16)
    assert refine.snapshots(models / "refine") == [1, 2]
    final, first, last = (_load(models, epoch).probabilities(pixels) for epoch in (None, 1, 2))
    assert torch.equal(final, last)
    assert not torch.allclose(final, first, atol=1e-3)


def test_an_unknown_snapshot_is_refused(models: Path) -> None:
    with pytest.raises(UserError, match=r"refine has no snapshot of epoch 3; see the list in its card\.json"):
        _load(models, 3)


def test_a_damaged_snapshot_is_refused_by_its_name(models: Path) -> None:
    path = models / "refine/snapshots/epoch-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"epoch-0001\.safetensors is not the file"):
        _load(models, 1)
    assert _load(models, 2) is not None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "encoder_head.safetensors is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "encoder_head.safetensors is not the file"),
    ],
    ids=["missing", "cut off"],
)
def test_a_damaged_head_of_the_encoder_is_refused_by_its_name(
    models: Path, damage: Callable[[Path], object], said: str
) -> None:
    made = _load(models)
    refine.save(models / "refine", made, read_card(models / "refine", RefineCard), made.transform.new_head(3))
    assert list(refine.parts(models / "refine", models / "classifier")) == ["encoder"]
    damage(models / "refine" / refine.ENCODER_HEAD)
    with pytest.raises(UserError, match=said):
        refine.parts(models / "refine", models / "classifier")
    assert _load(models) is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda head: head.weight.fill_(float("nan")), "not finite, in weight"),
        (lambda head: (head.weight.fill_(3e38), head.bias.fill_(3e38)), "not finite"),
    ],
    ids=["nan", "overflow"],
)
def test_a_head_that_gives_no_numbers_is_refused(
    models: Path, change: Callable[[nn.Linear], object], said: str
) -> None:
    made = _load(models)
    head = made.transform.new_head(3)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        change(head)
    refine.save(models / "refine", made, read_card(models / "refine", RefineCard), head)
    with pytest.raises(UserError, match=said):
        refine.parts(models / "refine", models / "classifier")


def test_a_head_of_more_classes_is_refused(models: Path) -> None:
    made = _load(models)
    refine.save(models / "refine", made, read_card(models / "refine", RefineCard), made.transform.new_head(4))
    with pytest.raises(UserError, match=r"encoder_head\.safetensors does not fit"):
        refine.parts(models / "refine", models / "classifier")


def test_another_classifier_is_refused(models: Path) -> None:
    classifier_folder(models / "other", seed=5)
    with pytest.raises(UserError, match=r"was trained for another classifier than .*other"):
        refine.load(models / "refine", models / "other")


@pytest.mark.parametrize(
    "permutation", [[0, 0, 1], [1, 2, 3], [-1, 0, 1], [2, 2, 2]], ids=["twice", "beyond", "below", "constant"]
)
def test_a_damaged_permutation_is_refused(models: Path, permutation: list[int]) -> None:
    _replace_weights(models, lambda tensors: tensors.update(permutation=torch.tensor(permutation)))
    with pytest.raises(UserError, match="holds no permutation of the classifier's classes"):
        _load(models)


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda tensors: tensors.pop("permutation"), "permutation"),
        (lambda tensors: tensors.update(permutation=torch.tensor([1.0, 2.0, 0.0])), "permutation"),
        (lambda tensors: tensors.update(permutation=torch.tensor([1, 0])), "permutation"),
        (lambda tensors: tensors.update({"classifier.head": torch.zeros(1)}), "classifier.head"),
    ],
    ids=["missing", "type", "length", "extra"],
)
def test_weights_that_do_not_fit_are_refused(
    models: Path, change: Callable[[dict[str, Tensor]], object], odd: str
) -> None:
    _replace_weights(models, change)
    with pytest.raises(UserError, match=f"first difference: {re.escape(odd)}"):
        _load(models)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors["transform.outlet.bias"].fill_(float("nan")), "not finite, in transform.outlet.bias"),
        (
            lambda tensors: tensors["transform.inlet.1.running_var"].sub_(99),
            "variances, in transform.inlet.1.running_var",
        ),
        (
            lambda tensors: tensors["transform.inlet.0.weight"].fill_(3e38),
            "not finite, from transform.inlet.0.weight on",
        ),
    ],
    ids=["nan", "negative", "overflow"],
)
def test_a_transform_that_gives_no_numbers_is_refused_by_its_tensor(
    models: Path, change: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    _replace_weights(models, change)
    with pytest.raises(UserError, match=said):
        _load(models)


CARDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "inverse direction": (lambda card: card.update(permutation_direction="inverse"), "permutation_direction"),
    "other input space": (lambda card: card.update(input_space="gray"), "input_space"),
    "a billion classes": (lambda card: card.update(num_classes=10**12), "num_classes"),
    "the widest": (
        lambda card: card["transform"].update(first_channels=1024),
        "does not fit the architecture",
    ),
    "other width": (
        lambda card: card["transform"].update(first_channels=16),
        "does not fit the architecture",
    ),
    "odd width": (lambda card: card["transform"].update(first_channels=9), "first_channels"),
    "no such transform": (lambda card: card["transform"].update(name="os"), "'os' is not known"),
    "a nameless transform": (lambda card: card.update(transform={}), "must be a mapping with a name"),
    "more classes": (lambda card: card.update(num_classes=4), "tells of 4 classes"),
    "other kind": (lambda card: card.update(kind="classifier"), "kind"),
    "no snapshot": (lambda card: card.update(snapshots=[]), "snapshots"),
    "a snapshot elsewhere": (lambda card: card["snapshots"][0].update(file="../../x.safetensors"), "snapshots"),
    "unknown key": (lambda card: card.update(extra=1), "extra"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_that_cannot_be_right_is_refused(models: Path, name: str) -> None:
    change, said = CARDS[name]
    _edit(models, change)
    with pytest.raises(UserError, match=said) as refused:
        _load(models)
    assert str(models / "refine") in str(refused.value)


def test_a_classifier_in_the_place_of_a_defense_is_refused(models: Path) -> None:
    with pytest.raises(UserError, match=r"card\.json cannot be used"):
        refine.load(models / "classifier", models / "classifier")
