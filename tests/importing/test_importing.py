"""A vendor's weights become a model folder that answers as the vendor's network did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.importing.importing import Asked, imported, write
from refine.models import classifier as classifiers
from refine.models.architecture import from_text

SIDE = 64
SHUFFLENET = from_text("torchvision:shufflenet_v2_x0_5")


def _moved(network: nn.Module, side: int = SIDE) -> nn.Module:
    """The batch statistics of a network moved from where they begin, and its head, where that begins with zeros."""
    with torch.no_grad():
        network.train()(torch.rand(8, 3, side, side))
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def vendor() -> nn.Module:
    """A network of torchvision with seven classes."""
    torch.manual_seed(0)
    return _moved(torchvision.models.shufflenet_v2_x0_5(num_classes=7))


def _saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "vendor.pth")
    return folder / "vendor.pth"


@torch.no_grad()
def _same(
    folder: Path, asked: Asked, path: Path, network: nn.Module, normalize: tuple[list[float], list[float]]
) -> None:
    """Imports, writes, loads again and compares the answers with the vendor's."""
    write(imported(path, asked), folder / "model")
    loaded, card = classifiers.load(folder / "model")
    pixels = torch.rand(3, 3, card.input_side, card.input_side)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalize)
    torch.testing.assert_close(loaded(pixels), network((pixels - mean) / std), rtol=1e-4, atol=1e-5)


IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def test_what_the_library_says_of_images_is_written_into_the_card(vendor: nn.Module, tmp_path: Path) -> None:
    path = _saved(tmp_path, {"state_dict": vendor.state_dict(), "epoch": 3})
    _same(tmp_path, Asked(SHUFFLENET), path, vendor, IMAGENET)
    card = classifiers.load(tmp_path / "model")[1]
    assert card.architecture.model_dump() == {
        "name": "torchvision",
        "model": "shufflenet_v2_x0_5",
        "small_stem": False,
    }
    assert card.classes == list("0123456")
    assert card.input_side == 224
    assert card.preparation is not None
    assert card.preparation.model_dump() == {
        "resize": 256,
        "crop": 224,
        "interpolation": "bilinear",
        "keep_aspect": True,
    }


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.backbone."])
def test_prefixes_of_wrappers_do_not_matter(prefix: str, vendor: nn.Module, tmp_path: Path) -> None:
    halves = {name: _half(tensor) for name, tensor in vendor.state_dict().items()}
    state = {f"{prefix}{name}": tensor for name, tensor in halves.items()}
    found = imported(_saved(tmp_path, state), Asked(SHUFFLENET, side=SIDE))
    own = found.classifier.network.state_dict()
    assert torch.equal(own["head.weight"], vendor.get_parameter("fc.weight").half().float())
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in own.values())


def test_what_the_user_says_counts(vendor: nn.Module, tmp_path: Path) -> None:
    save_file(vendor.state_dict(), tmp_path / "vendor.safetensors")
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    classes = [f"kind {label}" for label in range(7)]
    asked = Asked(SHUFFLENET, classes=classes, mean=mean, std=std, side=SIDE, resize=70, interpolation="nearest")
    _same(tmp_path, asked, tmp_path / "vendor.safetensors", vendor, (mean, std))
    card = classifiers.load(tmp_path / "model")[1]
    assert card.classes == classes
    assert card.preparation is not None
    assert (card.preparation.resize, card.preparation.crop, card.preparation.interpolation) == (70, SIDE, "nearest")


@torch.no_grad()
def test_a_network_of_bgr_takes_rgb_then(vendor: nn.Module, tmp_path: Path) -> None:
    path = _saved(tmp_path, vendor.state_dict())
    found = imported(path, Asked(SHUFFLENET, mean=[0.1, 0.2, 0.3], std=[1, 1, 1], side=SIDE, bgr=True)).classifier
    pixels = torch.rand(2, 3, SIDE, SIDE)
    expected = vendor((pixels - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)).flip(1))
    torch.testing.assert_close(found(pixels), expected, rtol=1e-4, atol=1e-5)


def _cifar_resnet18() -> nn.Module:
    network = torchvision.models.resnet18(num_classes=4)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return _moved(network, 32)


def test_first_layers_for_small_images_are_noticed(tmp_path: Path) -> None:
    network = _cifar_resnet18()
    path, asked = _saved(tmp_path, network.state_dict()), Asked(from_text("torchvision:resnet18"))
    _same(tmp_path, asked, path, network, IMAGENET)
    found = imported(path, asked)
    assert found.card.input_side == 32
    assert found.card.preparation is not None
    assert found.card.preparation.resize == 32
    assert "small images" in found.remarks[0]
    with pytest.raises(UserError, match=r"conv1\.weight is \[64, 3, 3, 3\], in torchvision:resnet18 .*7, 7"):
        imported(path, Asked(from_text("torchvision:resnet18"), small_stem=False))


def test_a_network_of_timm_is_read_as_timm_says(tmp_path: Path) -> None:
    network = _moved(timm.create_model("test_vit", num_classes=5), 160)
    path = _saved(tmp_path, network.state_dict())
    said = timm.get_pretrained_cfg("test_vit")
    _same(tmp_path, Asked(from_text("timm:test_vit")), path, network, (list(said.mean), list(said.std)))
    card = classifiers.load(tmp_path / "model")[1]
    assert card.preparation is not None
    assert card.preparation.interpolation == "bicubic"
    assert card.preparation.resize == int(160 / said.crop_pct)


def test_our_own_networks_are_imported_too(tmp_path: Path) -> None:
    made = classifiers.build(from_text("resnet18:8"), 3, classifiers.Normalization(mean=[0.5] * 3, std=[0.5] * 3), 16)
    network = _moved(made.network, 16)
    asked = Asked(from_text("resnet18:8"), mean=[0.5] * 3, std=[0.25] * 3, side=16)
    _same(tmp_path, asked, _saved(tmp_path, network.state_dict()), network, ([0.5] * 3, [0.25] * 3))


def test_outputs_that_only_training_uses_are_left_out(tmp_path: Path) -> None:
    network = _moved(torchvision.models.googlenet(num_classes=3, aux_logits=True, init_weights=False), 64)
    path = _saved(tmp_path, network.state_dict())
    _same(tmp_path, Asked(from_text("torchvision:googlenet"), side=64), path, network, ([0.5] * 3, [0.5] * 3))


def _without(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {own: tensor for own, tensor in state.items() if own != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: _without(state, "fc.weight") | {"fc.weight": torch.zeros(7, 5)}, r"fc\.weight is \[7, 5\], in"),
        (lambda state: _without(state, "conv1.1.weight"), r"has no conv1\.1\.weight of torchvision:shufflenet"),
        (
            lambda state: dict(state) | {"more": torch.zeros(1)},
            "also has more, which torchvision:shuffle",
        ),
        (
            lambda state: {"a.b": torch.zeros(1), "c": torch.zeros(2)},
            r"no last layer fc\.weight of .*called a\.b, c",
        ),
        (lambda state: _without(state, "conv1.1.weight") | {"x": torch.ones(1)}, r"has no conv1\.1\.weight.*, but x"),
        (lambda state: dict(state) | {"fc.bias": torch.full((7,), torch.nan)}, "not finite"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, said: str, vendor: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as refused:
        imported(_saved(tmp_path, change(vendor.state_dict())), Asked(SHUFFLENET, side=SIDE))
    assert "\n" not in str(refused.value)


def test_counters_that_old_files_lack_are_not_missed(vendor: nn.Module, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in vendor.state_dict().items() if "num_batches" not in name}
    _same(tmp_path, Asked(SHUFFLENET), _saved(tmp_path, state), vendor, IMAGENET)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(SHUFFLENET, classes=["a", "b"]), "knows 7 classes, but 2 names are given"),
        (Asked(SHUFFLENET, std=[0.0, 1.0, 1.0]), "--mean and --std: "),
        (Asked(from_text("resnet18:8")), "give their side by --input-side"),
        (Asked(from_text("torchvision:shufflenet")), "'shufflenet' is not known, did you mean"),
        (Asked(from_text("timm:test_rexnet")), "did you mean 'test_resnet'"),
        (Asked(SHUFFLENET, small_stem=True), "has no small stem"),
    ],
)
def test_what_is_asked_wrongly_is_said(asked: Asked, said: str, vendor: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        imported(_saved(tmp_path, vendor.state_dict()), asked)


def test_a_normalization_that_nobody_published_has_to_be_given(tmp_path: Path) -> None:
    made = classifiers.build(from_text("resnet18:8"), 3, classifiers.Normalization(mean=[0.5] * 3, std=[0.5] * 3), 16)
    with pytest.raises(UserError, match=r"nobody published how images are normalized for resnet18:8.*--mean 0\.4914"):
        imported(_saved(tmp_path, made.network.state_dict()), Asked(from_text("resnet18:8"), side=16))


@pytest.mark.parametrize("text", ["vgg", "torchvision", "resnet18:wide", "resnet18:4"])
def test_an_architecture_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=rf"^--architecture {text}: "):
        from_text(text)
