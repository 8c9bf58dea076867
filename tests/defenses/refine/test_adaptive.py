"""An attacker who expects REFINE."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from refine.backdoor.params import AdaptiveParams, TrainBackdoorParams
from refine.backdoor.train import train_backdoor
from refine.defenses.refine.adaptive import WithTransform
from refine.defenses.refine.model.label_map import derangement
from refine.models import classifier as classifiers
from tiny import CPU, Poisoned, backdoor_params, badnets, classifier, files_of, history, training_set

PARAMS = AdaptiveParams(first_channels=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """48 training images of three classes, a quarter of them poisoned."""
    return badnets(tmp_path_factory.mktemp("data"))


def _made(params: AdaptiveParams = PARAMS) -> WithTransform:
    torch.manual_seed(1)
    made = WithTransform(classifier(), 3, params)
    for parameter in made.classifier.parameters():
        parameter.requires_grad_()
    return made


def _pixels(count: int = 8) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def _gradients(made: WithTransform, poisoned: Tensor) -> dict[str, float]:
    """Of the loss through the transform, the norms in its two parts."""
    made.zero_grad()
    made.eval()  # batch statistics would let an image's gradient reach the others
    made(_pixels(), poisoned)[1].square().sum().backward()

    def norm(module: torch.nn.Module) -> float:
        return sum(float(each.grad.norm()) for each in module.parameters() if each.grad is not None)

    return {"transform": norm(made.transforms), "classifier": norm(made.classifier)}


def test_the_transform_learns_from_benign_images_and_the_classifier_from_all() -> None:
    made = _made()
    poisoned = _gradients(made, torch.ones(8, dtype=torch.bool))
    benign = _gradients(made, torch.zeros(8, dtype=torch.bool))
    assert poisoned["transform"] == 0 < benign["transform"]
    assert poisoned["classifier"] == pytest.approx(benign["classifier"])


def test_answers_come_through_transform_and_map() -> None:
    made = _made().eval()
    pixels, poisoned = _pixels(), torch.zeros(8, dtype=torch.bool)
    logits, through = made(pixels, poisoned)
    assert torch.allclose(logits, made.classifier(pixels), atol=1e-5)
    drawn = made.classifier(made.transforms[0](pixels).clamp(0, 1))
    assert torch.allclose(through[:, derangement(3, 666)], drawn, atol=1e-5)


def test_of_several_transforms_each_has_its_part_of_a_batch() -> None:
    made = _made(AdaptiveParams(first_channels=8, transforms=3)).eval()
    pixels = _pixels(7)
    _, through = made(pixels, torch.zeros(7, dtype=torch.bool))
    one, two, three = made.transforms
    drawn = torch.cat([one(pixels[:3]), two(pixels[3:5]), three(pixels[5:])])
    assert torch.allclose(through[:, derangement(3, 666)], made.classifier(drawn.clamp(0, 1)), atol=1e-5)
    assert not torch.allclose(one(pixels), two(pixels)), "each begins with weights of its own"
    through.square().sum().backward()
    assert all(each.outlet.weight.grad.any() for each in made.transforms), "and each learns"


def test_fewer_images_than_transforms_leave_some_aside() -> None:
    made = _made(AdaptiveParams(first_channels=8, transforms=3)).eval()
    pixels = _pixels(2)
    _, through = made(pixels, torch.zeros(2, dtype=torch.bool))
    drawn = torch.cat([made.transforms[0](pixels[:1]), made.transforms[1](pixels[1:])]).clamp(0, 1)
    assert torch.allclose(through[:, derangement(3, 666)], made.classifier(drawn), atol=1e-5)


@pytest.mark.parametrize("transforms", [1, 2])
def test_training_is_repeatable_and_leaves_a_classifier_as_any_other(
    data: Poisoned, tmp_path: Path, transforms: int
) -> None:
    adaptive = PARAMS.model_copy(update={"transforms": transforms})
    params = backdoor_params(epochs=6).model_copy(update={"adaptive": adaptive})
    for name, each in {"first": params, "second": params, "plain": backdoor_params(epochs=6)}.items():
        given = data.outputs.attack / "training"
        train_backdoor(each, training_set(data.poisoned_train), given, CPU, tmp_path / name, beside=WithTransform)
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")
    made, plain = (classifiers.load(tmp_path / name)[0].state_dict() for name in ("first", "plain"))
    assert made.keys() == plain.keys()
    rows = history(tmp_path / "first")
    assert rows[-1]["through_transform"] < rows[0]["through_transform"]
    assert "through_transform" not in history(tmp_path / "plain")[0]


def test_nobody_prepares_unless_told_to() -> None:
    assert backdoor_params().adaptive is None
    written = {**backdoor_params().model_dump(exclude={"imported"}), "adaptive": {}}
    assert TrainBackdoorParams.model_validate(written).adaptive == AdaptiveParams()
