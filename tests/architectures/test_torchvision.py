"""Networks of torchvision, one of each family, and those that are built for small images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from refine.architectures.torchvision.network import build
from refine.architectures.torchvision.params import Params
from refine.core.errors import UserError
from refine.importing.published import published
from refine.models.apart import Split
from refine.models.architecture import named
from refine.models.classifier import Classifier, Normalization, folded, freeze
from tiny import same_tensors

FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5",
    "swin_t", "swin_v2_t", "vgg11", "vit_b_32",
)  # fmt: skip
SMALL = {"resnet18": 11_173_962, "resnet50": 23_520_842, "vgg16_bn": 14_728_266}
"""Parameters of networks for ten classes of images of 32 pixels, as published."""


@pytest.mark.parametrize("model", FAMILIES)
def test_one_of_each_family_has_features_and_a_head(model: str) -> None:
    said = published(named("torchvision", model=model))
    assert said is not None
    with torch.device("meta"):
        made = build(Params(model=model), 7, said.side)
    assert isinstance(made, Split)
    assert made.head.out_features == 7


@pytest.mark.parametrize("model", SMALL)
def test_networks_for_small_images_have_their_published_size(model: str) -> None:
    with torch.device("meta"):
        made = build(Params(model=model, small_stem=True), 10, 32)
    assert sum(parameter.numel() for parameter in made.parameters()) == SMALL[model]


@pytest.mark.parametrize("model", ["densenet121", "vgg11_bn", "vit_small", "regnet_x_400mf"])
def test_a_step_of_training_moves_it_and_folding_keeps_its_answers(model: str) -> None:
    torch.manual_seed(0)
    network = build(Params(model=model, small_stem=not model.startswith("regnet")), 3, 32)
    images, labels = torch.rand(6, 3, 32, 32), torch.arange(6) % 3
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    nn.functional.cross_entropy(network.train()(images), labels).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    optimizer.step()
    assert not same_tensors(before, network.state_dict())
    classifier = freeze(Classifier(network, Normalization(mean=[0.5] * 3, std=[0.25] * 3)))
    torch.testing.assert_close(folded(classifier)(images), classifier(images), rtol=1e-3, atol=1e-3)


def test_maps_of_small_images_are_kept_large() -> None:
    with torch.device("meta"):
        images = torch.zeros(2, 3, 32, 32)
        for model, place in (("resnet18", "layer1"), ("densenet121", "features.denseblock1")):
            made = build(Params(model=model, small_stem=True), 3, 32)
            shapes: list[torch.Size] = []
            made.body.get_submodule(place).register_forward_hook(lambda *of, to=shapes: to.append(of[2].shape))
            made(images)
            assert shapes[0][2:] == (32, 32)


@pytest.mark.parametrize(
    ("settings", "side", "said"),
    [
        ({"model": "resnet81"}, 32, "'resnet81' is not known, did you mean 'resnet18'"),
        ({"model": "fasterrcnn_resnet50_fpn"}, 32, "is not known"),
        ({"model": "alexnet"}, 16, "does not take images of 16 pixels"),
        ({"model": "vit_b_16"}, 40, "cannot be built for images of 40 pixels"),
        ({"model": "alexnet", "small_stem": True}, 224, "has no small stem"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(settings: dict[str, str], side: int, said: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=said) as refused:
        build(Params.model_validate(settings), 3, side)
    assert "\n" not in str(refused.value)


def test_the_small_vision_transformer_is_for_small_images() -> None:
    with pytest.raises(ValueError, match="set small_stem to true"):
        Params(model="vit_small")
