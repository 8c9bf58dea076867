"""Networks of timm, an extra."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from refine.architectures.timm.network import build
from refine.architectures.timm.params import Params
from refine.core.errors import UserError
from refine.importing.published import published
from refine.models.apart import Split
from refine.models.architecture import named
from refine.models.classifier import Classifier, Normalization, folded, freeze

SAMPLE = {
    "convnext_atto": True, "deit_tiny_distilled_patch16_224": False, "efficientnet_lite0": True, "inception_v3": True,
    "mixer_s32_224": True, "resnet10t": True, "swin_tiny_patch4_window7_224": True, "vit_tiny_patch16_224": True,
}  # fmt: skip
"""Whether they end in a linear layer."""


@pytest.mark.parametrize("model", SAMPLE)
def test_a_head_is_found_where_there_is_one(model: str) -> None:
    said = published(named("timm", model=model))
    assert said is not None
    with torch.device("meta"):
        made = build(Params(model=model), 7, said.side)
    assert isinstance(made, Split) is SAMPLE[model]


@torch.no_grad()
@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext", "test_byobnet", "test_efficientnet"])
def test_folding_keeps_the_answers(model: str) -> None:
    torch.manual_seed(0)
    network = build(Params(model=model), 3, 96)
    images = torch.rand(4, 3, 96, 96)
    network.train()(images)
    classifier = freeze(Classifier(network, Normalization(mean=[0.5] * 3, std=[0.25] * 3)))
    torch.testing.assert_close(folded(classifier)(images), classifier(images), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_network_with_tensors_of_five_dimensions_is_used_as_it_is() -> None:
    network = build(Params(model="swin_tiny_patch4_window7_224"), 3, 64).eval()
    images = torch.rand(1, 3, 64, 64)
    classifier = freeze(Classifier(network, Normalization(mean=[0.5] * 3, std=[0.25] * 3)))
    torch.testing.assert_close(folded(classifier)(images), classifier(images), rtol=1e-4, atol=1e-4)


def test_without_the_package_one_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def missing(name: str, *of: Any) -> Any:
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'", name="timm")
        return found(name, *of)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"need the package timm; install it with `pip install timm`$"):
        build(Params(model="test_vit"), 3, 96)


@pytest.mark.parametrize("model", ["hf-hub:somebody/model", "../model", "resnet18.a1_in1k"])
def test_names_that_lead_elsewhere_are_refused(model: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Params(model=model)
