"""Classifier folders: exact when they are right, one sentence when they are not, and never unpickled."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.core.registry import part
from refine.models import classifier as classifiers
from refine.models.classifier import ClassifierCard
from refine.shards.format import foreign
from refine.shards.format.preparation import Preparation, read
from support import PROJECT
from tiny import MEAN, STD, classifier, classifier_card, classifier_folder, defense_folder, files_of, same_tensors


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier written by hand."""
    folder = tmp_path_factory.mktemp("models") / "classifier"
    classifier_folder(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "classifier"))


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    change(card)
    path.write_text(json.dumps(card), encoding="utf-8")


def _replace_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Other weights whose sum is right."""
    path = folder / "weights.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    _edit(folder, lambda card: card.update(weights_sha256=sha256_of(path)))


def test_a_card_says_how_image_files_become_input_only_where_that_is_set(tmp_path: Path, folder: Path) -> None:
    plain = (folder / "card.json").read_text(encoding="utf-8")
    assert "preparation" not in json.loads(plain)
    assert ClassifierCard.model_validate_json(plain).model_dump() == json.loads(plain)
    Image.linear_gradient("L").resize((40, 20)).save(tmp_path / "wide.png")
    squashed = classifier_card().read_image(tmp_path / "wide.png")
    assert np.array_equal(squashed, foreign.read(tmp_path / "wide.png", 16))
    form = Preparation(resize=20, crop=16)
    _edit(folder, lambda card: card.update(preparation=form.model_dump()))
    card = classifiers.load(folder)[1]
    assert card.preparation == form
    assert card.model_dump() == json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert np.array_equal(card.read_image(tmp_path / "wide.png"), read(tmp_path / "wide.png", form))
    _edit(folder, lambda card: card["preparation"].update(crop=17))
    with pytest.raises(UserError, match=r"preparation\.crop is 17, not its input_side 16"):
        classifiers.load(folder)


def test_what_was_saved_comes_back_exactly(folder: Path) -> None:
    made = classifier()
    loaded, card = classifiers.load(folder)
    images = torch.rand(5, 3, 16, 16)
    assert same_tensors(loaded.network.state_dict(), made.network.state_dict())
    assert torch.equal(loaded(images), made(images))
    assert card == classifier_card().model_copy(update={"weights_sha256": card.weights_sha256})


def test_equal_weights_give_equal_bytes_whatever_their_layout_in_memory(written: Path, tmp_path: Path) -> None:
    made = classifier().to(memory_format=torch.channels_last)
    assert not made.network.get_parameter("stem.0.weight").is_contiguous()
    tmp_path.joinpath("again").mkdir()
    classifiers.save(tmp_path / "again", made, classifier_card())
    assert files_of(tmp_path / "again") == files_of(written)


def test_the_card_says_all_that_another_program_needs(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card == {
        "format_version": 1,
        "kind": "classifier",
        "weights_sha256": sha256_of(folder / "weights.safetensors"),
        "training": {},
        "architecture": {"name": "resnet18", "width": 8},
        "classes": ["class-0", "class-1", "class-2"],
        "normalization": {"mean": MEAN, "std": STD},
        "channel_order": "RGB",
        "input_side": 16,
        "input_range": [0.0, 1.0],
    }


def test_pixels_are_normalized_inside() -> None:
    made = classifier()
    images = torch.rand(4, 3, 16, 16)
    normalized = torch.empty_like(images)
    for channel in range(3):
        normalized[:, channel] = (images[:, channel] - MEAN[channel]) / STD[channel]
    torch.testing.assert_close(made(images), made.network(normalized), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(made(images), made.network(images), atol=1e-2)


def test_folded_it_answers_alike_and_lets_the_same_gradients_through(folder: Path) -> None:
    loaded, _ = classifiers.load(folder)
    before = {name: tensor.clone() for name, tensor in loaded.network.state_dict().items()}
    folded = classifiers.folded(loaded)
    images, gradients = torch.rand(6, 3, 16, 16), []
    for one in (loaded, folded):
        pixels = images.clone().requires_grad_()
        one(pixels).log_softmax(dim=1)[:, 0].sum().backward()
        gradients.append(pixels.grad)
    torch.testing.assert_close(folded(images), loaded(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert same_tensors(loaded.network.state_dict(), before)


def test_a_loaded_classifier_is_frozen_and_in_eval_mode(folder: Path) -> None:
    loaded, _ = classifiers.load(folder)
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    loaded(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


CARDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "wrong sum": (lambda card: card.update(weights_sha256="0" * 64), r"weights\.safetensors is not the file"),
    "no sum": (lambda card: card.update(weights_sha256="abc"), "card.json cannot be used .weights_sha256"),
    "other width": (lambda card: card["architecture"].update(width=16), "does not fit the architecture in its card"),
    "tiny width": (lambda card: card["architecture"].update(width=1), "architecture.width"),
    "huge width": (lambda card: card["architecture"].update(width=10**6), "architecture.width"),
    "other architecture": (lambda card: card["architecture"].update(name="resnet19"), "did you mean 'resnet18'"),
    "a path": (lambda card: card["architecture"].update(name="../x"), "'../x' is not known"),
    "a way back": (lambda card: card["architecture"].update(name="../architectures/resnet18"), "is not known"),
    "a module": (lambda card: card["architecture"].update(name="os"), "'os' is not known"),
    "a dotted name": (lambda card: card["architecture"].update(name="resnet18.os"), "is not known"),
    "the room itself": (lambda card: card["architecture"].update(name="__init__"), "is not known"),
    "more classes": (lambda card: card["classes"].append("more"), "first difference: head.bias"),
    "one class": (lambda card: card.update(classes=["one"]), "classes"),
    "other kind": (lambda card: card.update(kind="refine"), "kind"),
    "other format": (lambda card: card.update(format_version=2), "format_version"),
    "other range": (lambda card: card.update(input_range=[0.0, 255.0]), r"takes pixels in \[0.0, 255.0\]"),
    "other channels": (lambda card: card.update(channel_order="BGR"), "channel_order"),
    "the widest": (lambda card: card["architecture"].update(width=1024), "does not fit the architecture"),
    "a side beyond all data": (lambda card: card.update(input_side=4096), "input_side"),
    "a deviation that divides by nothing": (lambda card: card["normalization"].update(std=[0.2, 1e-300, 0.2]), "std.1"),
    "a mean beyond all pixels": (lambda card: card["normalization"].update(mean=[0.5, 1e300, 0.5]), "mean.1"),
    "zero deviation": (lambda card: card["normalization"].update(std=[0.2, 0.0, 0.2]), "normalization.std"),
    "two means": (lambda card: card["normalization"].update(mean=[0.5, 0.5]), "normalization.mean"),
    "a mean that is no number": (
        lambda card: card["normalization"].update(mean=[float("nan")] * 3),
        "NaN is no number",
    ),
    "an unknown key": (lambda card: card.update(hook="x"), "hook"),
    "a missing key": (lambda card: card.pop("input_side"), "input_side"),
    "text for a number": (lambda card: card.update(input_side="16"), "input_side"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_that_cannot_be_right_is_refused_in_one_sentence(folder: Path, name: str) -> None:
    change, said = CARDS[name]
    _edit(folder, change)
    with pytest.raises(UserError, match=said) as refused:
        classifiers.load(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "\udcff", "9" * 5000, "[" * 100_000],
    ids=["empty", "cut", "list", "bytes", "number", "deep"],
)
def test_a_card_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "card.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"card\.json"):
        classifiers.load(folder)


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{re.escape(str(folder / name))} is missing; run `dvc checkout`"):
        classifiers.load(folder)


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_named_and_not_waited_for(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(
        UserError, match=rf"{re.escape(str(folder / name))} is (missing|not a file); run `dvc checkout`"
    ):
        classifiers.load(folder)


def test_nothing_is_allocated_that_the_file_does_not_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _edit(folder, lambda card: card["architecture"].update(width=1024))
    built = []
    resnet = part(classifiers.ARCHITECTURES, "resnet18", "network")
    build = resnet.build

    def watched(*arguments: Any) -> torch.nn.Module:
        built.append(build(*arguments))
        return built[-1]

    monkeypatch.setattr(resnet, "build", watched)
    with pytest.raises(UserError, match="does not fit the architecture in its card"):
        classifiers.load(folder)
    assert len(built) == 1
    assert {tensor.device.type for tensor in built[0].state_dict().values()} == {"meta"}


def test_loading_draws_from_the_random_state_as_building_does(folder: Path) -> None:
    torch.manual_seed(3)
    classifiers.load(folder)
    after = torch.rand(1)
    torch.manual_seed(3)
    card = classifier_card()
    classifiers.build(card.architecture, len(card.classes), card.normalization, 16)
    assert torch.equal(torch.rand(1), after)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*is missing"):
        classifiers.load(tmp_path / "nowhere")


def test_cut_weights_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"weights\.safetensors is not the file that its description names"):
        classifiers.load(folder)


def test_cut_weights_are_refused_even_when_their_sum_is_right(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    _edit(folder, lambda card: card.update(weights_sha256=sha256_of(path)))
    with pytest.raises(UserError, match=r"weights\.safetensors is not a safetensors file"):
        classifiers.load(folder)


def _overflow_inside(tensors: dict[str, torch.Tensor]) -> None:
    """Beyond float32 whatever the layer before answers, which is near 0 where weights are as torch draws them."""
    tensors["stages.3.1.bn2.weight"].fill_(3e38)
    tensors["stages.3.1.bn2.running_var"].zero_()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors["head.bias"].fill_(float("nan")), "not finite, in head.bias"),
        (lambda tensors: tensors["stem.1.running_var"].fill_(float("inf")), "not finite, in stem.1.running_var"),
        (lambda tensors: tensors["stem.1.running_var"].fill_(-1.0), "negative variances, in stem.1.running_var"),
        (lambda tensors: tensors["stem.0.weight"].fill_(3e38), "not finite, from stem.0.weight on"),
        (_overflow_inside, "not finite, from stages.3.1.bn2.weight on"),
        (lambda tensors: tensors["head.weight"].fill_(3e38), "not finite, from head.weight on"),
        (lambda tensors: tensors.pop("head.bias"), "first difference: head.bias"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "first difference: extra"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(4)}), "first difference: head.bias"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(3).half()}), "first difference: head.bias"),
    ],
    ids=["nan", "infinite", "negative", "first", "inner", "last", "missing", "extra", "shape", "type"],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    _replace_weights(folder, change)
    with pytest.raises(UserError, match=said):
        classifiers.load(folder)


def test_a_pickle_in_the_place_of_weights_is_not_opened(folder: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "gone-off",)

    path = folder / "weights.safetensors"
    torch.save({"head.bias": Bomb()}, path)
    _edit(folder, lambda card: card.update(weights_sha256=sha256_of(path)))
    with pytest.raises(UserError, match="is not a safetensors file"):
        classifiers.load(folder)
    assert not (tmp_path / "gone-off").exists()


def test_the_folder_of_a_defense_is_no_classifier(folder: Path, tmp_path: Path) -> None:
    defense_folder(tmp_path / "refine", folder)
    with pytest.raises(UserError, match=r"refine/card\.json cannot be used"):
        classifiers.load(tmp_path / "refine")


def test_a_card_made_in_code_obeys_the_rules_of_one_that_is_read() -> None:
    with pytest.raises(ValueError, match="classes"):
        ClassifierCard.model_validate({**classifier_card().model_dump(), "classes": ["one"]})


def test_nothing_is_unpickled_but_by_the_class_that_knows_arrays_alone() -> None:
    unsafe = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas.read_pickle"}
    importing: dict[str, list[str]] = {}
    for path in sorted([*(PROJECT / "src").rglob("*.py"), *(PROJECT / "stages").rglob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.name
        for node in ast.walk(tree):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            importing.setdefault(name, []).extend(module for module in imported if module.split(".")[0] in unsafe)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
                assert (name, node.attr) == ("cifar.py", "Unpickler")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert name in ("checkpoint.py", "weights_file.py")
                assert options.get("weights_only") == "True"
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"read_pickle", "jit"}
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle"
    assert {name: modules for name, modules in importing.items() if modules} == {"cifar.py": ["pickle"]}


def test_a_card_of_the_first_release_is_read(tmp_path: Path) -> None:
    made = classifier_folder(tmp_path / "classifier")
    path = tmp_path / "classifier/card.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalisation"] = content.pop("normalization")
    path.write_text(json.dumps(content), encoding="utf-8")
    loaded, card = classifiers.load(tmp_path / "classifier")
    assert torch.equal(loaded.mean, made.mean)
    assert "normalization" in card.model_dump()
