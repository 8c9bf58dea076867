"""The transform whose encoder begins with the classifier's weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.core.registry import ARCHITECTURES, TRANSFORMS, names
from refine.defenses.refine import defense as refine
from refine.defenses.refine.model.transform import built
from refine.defenses.refine.model.transforms.encoder_decoder.params import Params
from refine.defenses.refine.model.transforms.encoder_decoder.transform import EncoderDecoder
from refine.defenses.refine.training.train import train_refine
from refine.models import classifier as classifiers
from refine.models.architecture import named
from refine.models.classifier import ClassifierCard
from refine.training.training_set import Resident
from support import synthetic
from tiny import (
    CPU,
    classifier,
    classifier_card,
    classifier_folder,
    files_of,
    refine_params,
    same_tensors,
    small,
)

SMALL: dict[str, Any] = {"name": "encoder_decoder", "channels": 8, "start": "from_classifier"}
KEPT: dict[str, Any] = {**SMALL, "replaced": [0.0], "replaced_in_head": 0.0}
ENCODER: dict[str, Any] = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.05}, "frozen": True}


def _card(architecture: str = "resnet18", side: int = 16) -> ClassifierCard:
    card = classifier_card(side=side)
    return card.model_copy(update={"architecture": small(architecture)})


def _made(side: int = 16, architecture: str = "resnet18", **settings: Any) -> EncoderDecoder:
    torch.manual_seed(2)
    return EncoderDecoder(Params.model_validate({**SMALL, **settings}), _card(architecture, side))


def _none() -> Tensor:
    raise AssertionError("no image is needed")


def _pixels() -> Tensor:
    return torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("architecture", names(ARCHITECTURES))
@pytest.mark.parametrize("side", [16, 28, 33])
def test_images_keep_their_size(architecture: str, side: int) -> None:
    made = _made(side, architecture).eval()
    assert made(torch.rand(2, 3, side, side)).shape == (2, 3, side, side)


def test_what_the_encoder_does_not_tell_is_not_in_the_picture() -> None:
    """Two images with the same features become the same picture."""
    made = _made().eval()
    blind = made.network.get_submodule("stem.0")
    assert isinstance(blind, nn.Conv2d)
    nn.init.zeros_(blind.weight)
    first, second = made(torch.rand(2, 3, 16, 16)).detach()
    assert torch.equal(first, second)


@pytest.mark.parametrize("architecture", names(ARCHITECTURES))
def test_where_nothing_is_replaced_encoder_and_head_are_the_classifier(architecture: str) -> None:
    torch.manual_seed(1)
    card = _card(architecture)
    of = classifiers.build(card.architecture, 3, card.normalization, 16).eval()
    made = _made(architecture=architecture, **KEPT)
    head = made.begin(of, 3, _none)
    pixels = _pixels()
    assert torch.allclose(head(made.eval().encoded(pixels)), of(pixels), atol=1e-5)


def test_a_share_is_replaced_and_the_classifier_stays_as_it_is() -> None:
    of = classifier()
    before = {name: tensor.clone() for name, tensor in of.state_dict().items()}
    made = _made(replaced=[0.5], replaced_in_head=0.25)
    head = made.begin(of, 3, _none)
    assert same_tensors(of.state_dict(), before)
    kept = {name: tensor for name, tensor in made.network.named_parameters() if tensor.dim() == 4}
    same = torch.cat([(tensor == of.network.get_parameter(name)).flatten() for name, tensor in kept.items()])
    assert same.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert isinstance(of.network.head, nn.Linear)
    assert isinstance(head, nn.Linear)
    assert 0 < (head.weight == of.network.head.weight).float().mean().item() < 1
    assert all(parameter.requires_grad for parameter in (*made.parameters(), *head.parameters()))


def test_a_fresh_encoder_has_nothing_of_the_classifier() -> None:
    of = classifier()
    made = _made(start="fresh")
    made.begin(of, 3, _none)
    for name, tensor in made.network.named_parameters():
        if tensor.dim() == 4:
            assert not (tensor == of.network.get_parameter(name)).any(), name


def test_a_fresh_encoder_computes_what_it_has_to_from_images() -> None:
    card = _card("airbench")
    of = classifiers.build(card.architecture, 3, card.normalization, 16)
    made = _made(architecture="airbench", start="fresh")
    made.begin(of, 3, _pixels)
    patches = made.network.whiten((_pixels() - made.mean) / made.std)  # type: ignore[operator]
    assert patches.square().mean().item() == pytest.approx(1, abs=0.2)
    assert not made.network.get_parameter("whiten.weight").requires_grad


def test_a_frozen_encoder_gives_the_same_features_and_no_gradient() -> None:
    made = _made()
    made.begin(classifier(), 3, _none)
    pixels = _pixels()
    before = made.eval().encoded(pixels)
    made.freeze_encoder()
    made.train()
    made(pixels).sum().backward()
    assert torch.allclose(made.encoded(pixels), before, atol=1e-4)
    assert {name.split(".")[0] for name, tensor in made.named_parameters() if tensor.grad is not None} == {
        "inlet",
        "up",
        "outlet",
    }
    assert not any("folded" in name for name in made.state_dict())


def _trained(folder: Path, of: Path, **changes: Any) -> dict[str, str]:
    params = refine_params(**{"transform": SMALL, "encoder": ENCODER, "pseudo_labels": "once", **changes})
    train_refine(params, Resident(synthetic(48)[0], ()), of, CPU, folder)
    return files_of(folder)


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "classifier"
    classifier_folder(folder)
    return folder


@pytest.mark.parametrize("start", ["fresh", "from_classifier"])
@pytest.mark.parametrize("learns", ["labels", "probabilities", "features"])
@pytest.mark.parametrize("asked", ["once", "each_step"])
def test_it_trains_and_is_loaded_again(of: Path, tmp_path: Path, start: str, learns: str, asked: str) -> None:
    transform, encoder = {**SMALL, "start": start}, {**ENCODER, "learns": learns}
    changes = {"transform": transform, "encoder": encoder, "pseudo_labels": asked}
    assert _trained(tmp_path / "one", of, **changes) == _trained(tmp_path / "other", of, **changes)
    made = refine.load(tmp_path / "one", of)
    assert isinstance(made.transform, EncoderDecoder)
    assert made(_pixels()).shape == (16, 3)


def test_the_classifiers_features_are_learned_the_more_the_larger_their_weight(of: Path, tmp_path: Path) -> None:
    encoder = {**ENCODER, "epochs": 6, "learns": "features"}
    distances = []
    for weight in (0.1, 10.0):
        _trained(tmp_path / f"{weight}", of, encoder={**encoder, "features_weight": weight})
        with (tmp_path / f"{weight}/encoder_history.csv").open(encoding="utf-8") as file:
            distances.append([float(row["cosine_distance"]) for row in csv.DictReader(file)])
    assert distances[1][-1] < distances[1][0]
    assert distances[1][-1] < distances[0][-1] - 0.01


def test_features_need_an_encoder_that_has_as_many() -> None:
    with pytest.raises(ValueError, match=r"encoder of unet has other features.*encoder\.learns to probabilities"):
        refine_params(encoder={**ENCODER, "learns": "features"})


def test_it_takes_pixels_alone() -> None:
    with pytest.raises(ValueError, match="encoder_decoder takes pixels; set input_space to pixel"):
        refine_params(transform=SMALL, input_space="normalized_clamp01")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "encoder_decodr"}, r"did you mean 'encoder_decoder'\?"),
        ({"name": "encoder_decoder", "replaced": []}, r"transform\.replaced\n.*at least 1"),
        ({"name": "encoder_decoder", "first_channels": 8}, r"'first_channels' is not known"),
        ({"first_channels": 8}, "must be a mapping with a name"),
        ("unet", "must be a mapping with a name"),
    ],
)
def test_wrong_settings_are_told(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        refine_params(transform=wrong)


@pytest.mark.parametrize("name", names(TRANSFORMS))
def test_every_transform_is_built_without_settings_and_knows_its_encoder(name: str) -> None:
    made = built(refine_params(transform={"name": name}).transform, _card())
    head = made.begin(classifier(), 3, _none)
    made.eval()
    features = made.encoded(_pixels())
    assert head(features).shape == (16, 3)
    features.sum().backward()
    touched = {name for name, tensor in made.named_parameters() if tensor.grad is not None}
    own = {id(tensor) for part in made.encoder() for tensor in part.parameters()}
    assert touched == {name for name, tensor in made.named_parameters() if id(tensor) in own}


def test_a_network_without_a_head_cannot_be_its_encoder() -> None:
    card = classifier_card(side=64)
    card = card.model_copy(update={"architecture": named("torchvision", model="squeezenet1_1")})
    with torch.device("meta"), pytest.raises(UserError, match="the transform encoder_decoder needs an architecture"):
        EncoderDecoder(Params.model_validate(SMALL), card)
