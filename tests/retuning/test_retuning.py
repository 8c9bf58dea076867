"""The retuning attack: whom it brings back, whom it leaves, and what it may not change."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.defending.protocol.defense import Defense, NoDefense, Retunes
from refine.defenses.refine.defense import Refine
from refine.models.classifier import Classifier, Normalization
from refine.retuning.attack import Draw, drawn, retuned, variants
from refine.retuning.params import RetuningParams
from refine.shards.reading.reader import Split
from support import description, synthetic
from tiny import CPU, classifier, defense, same_tensors

SIDE, CLASSES, TARGET = 4, 3, 0
PARAMS = RetuningParams(clean_share=0.2)


class Detectors(nn.Module):
    """Tells the class by the brightness, and by how bright the first pixel is adds to the target's logit.

    The detector of the trigger is one weight, and `gate` says how much of it counts.
    """

    def __init__(self, detector: float, gate: float) -> None:
        super().__init__()
        self.detector = nn.Parameter(torch.tensor(detector))
        self.gate = nn.Parameter(torch.tensor(gate))

    def forward(self, images: Tensor) -> Tensor:
        brightness = images[:, :, 1:].mean(dim=(1, 2, 3))
        centers = torch.arange(CLASSES) / CLASSES
        logits = -100 * (brightness.unsqueeze(1) - centers) ** 2
        seen = self.detector * self.gate * (images[:, :, 0, 0].mean(dim=1) - 0.5).relu()
        hit: Tensor = torch.zeros_like(logits).index_fill(1, torch.tensor([TARGET]), 1.0) * seen.unsqueeze(1)
        return logits + hit


def _system(detector: float, gate: float) -> Defense:
    identity = Normalization(mean=[0.0] * 3, std=[1.0] * 3)
    return NoDefense(Classifier(Detectors(detector, gate), identity)).eval().requires_grad_(False)


def _images(count: int, trigger: bool) -> tuple[Tensor, Tensor]:
    """Images uint8 of one brightness each, with a white or a black first pixel, and their classes."""
    labels = torch.arange(count) % CLASSES
    images = (255 * labels / CLASSES).round().to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, SIDE, SIDE)
    images[:, :, 0, 0] = 255 if trigger else 0
    return images, labels


def _split(images: Tensor, labels: Tensor, poisoned: list[bool]) -> Split:
    manifest: Any = description(SIDE, CLASSES)
    return Split(images, labels, torch.arange(len(labels)), [{"poisoned": each} for each in poisoned], manifest)


def _sets(count: int = 60, poisoned: int = 10) -> tuple[Split, Split]:
    """A clean training set, and the same with a trigger and the target's label on the last images."""
    images, labels = _images(count, trigger=False)
    clean = _split(images, labels, [False] * count)
    other, changed = images.clone(), labels.clone()
    other[count - poisoned :], changed[count - poisoned :] = _images(poisoned, trigger=True)[0], TARGET
    return clean, _split(other, changed, [row >= count - poisoned for row in range(count)])


@torch.no_grad()
def _asr(system: Defense) -> float:
    images, labels = _images(300, trigger=True)
    answered = system(images[labels != TARGET] / 255).argmax(dim=1)
    return (answered == TARGET).double().mean().item()


def test_a_backdoor_that_is_only_hidden_comes_back_and_a_clean_model_stays_clean() -> None:
    """Both have the same answers; one gate is shut before a strong detector of the trigger, one before none."""
    hidden, clean = _system(detector=300.0, gate=0.0), _system(detector=0.0, gate=1.0)
    assert _asr(hidden) == _asr(clean) == 0
    draws = [drawn(*_sets(), PARAMS, seed) for seed in (1, 2, 3)]
    after = {
        name: [_asr(retuned(system, "all", draw, PARAMS, CPU)) for draw in draws]
        for name, system in (("hidden", hidden), ("clean", clean))
    }
    assert min(after["hidden"]) == 1
    assert max(after["clean"]) == 0


def test_it_changes_a_copy() -> None:
    system = _system(detector=300.0, gate=0.0)
    before = deepcopy(system.state_dict())
    made = retuned(system, "all", drawn(*_sets(), PARAMS, 1), PARAMS, CPU)
    assert same_tensors(before, system.state_dict())
    assert not same_tensors(before, made.state_dict())
    assert not any(module.training for module in (*system.modules(), *made.modules()))


def test_the_attacker_has_a_share_of_the_clean_images_and_five_poisoned_ones() -> None:
    clean, poisoned = _sets(count=60, poisoned=10)
    draw = drawn(clean, poisoned, PARAMS, 1)
    assert (len(draw.images), len(draw.labels), draw.poisoned) == (17, 17, 5)
    triggered = draw.images[:, 0, 0, 0] == 255
    assert triggered.tolist() == [False] * 12 + [True] * 5
    assert (draw.labels[12:] == TARGET).all()
    assert torch.equal(draw.labels[:12], (draw.images[:12, 0, 1, 1].double() * CLASSES / 255).round().long())


def test_where_fewer_are_poisoned_all_of_them_are_taken() -> None:
    assert drawn(*_sets(poisoned=3), PARAMS, 1).poisoned == 3


def test_another_seed_draws_others_and_the_same_seed_the_same() -> None:
    clean, poisoned = _sets()
    clean.images[:, :, 3, 3] = torch.arange(60, dtype=torch.uint8).view(-1, 1)
    one, again, other = (drawn(clean, poisoned, PARAMS, seed).images for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_without_a_poisoned_image_it_is_refused() -> None:
    clean, _ = _sets()
    with pytest.raises(UserError, match="no training image is poisoned"):
        drawn(clean, clean, PARAMS, 1)


def test_the_settings_are_the_published_ones() -> None:
    assert RetuningParams().model_dump() == {
        **{"clean_share": 0.02, "poisoned": 5, "epochs": 5, "batch_size": 128, "lr": 0.01, "momentum": 0.9},
        **{"seeds": [1, 2, 3, 4, 5], "tested": 2000},
    }


@pytest.fixture(scope="module")
def refine() -> Refine:
    """A tiny REFINE defense."""
    return defense(classifier())


def _draw(count: int = 24) -> Draw:
    images, labels = synthetic(count)
    return Draw(images, labels, 2, 1)


def _changed(before: Defense, after: Defense) -> set[str]:
    """Which parts of REFINE have other weights or statistics."""
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name.split(".")[0] for (name, one), other in pairs if not torch.equal(one, other)}


def test_of_refine_the_transform_is_trained_alone_or_with_the_classifier(refine: Refine) -> None:
    assert isinstance(refine, Retunes)
    assert variants(refine) == ["transform", "all"]
    once = RetuningParams(epochs=1)
    assert _changed(refine, retuned(refine, "transform", _draw(), once, CPU)) == {"transform"}
    assert _changed(refine, retuned(refine, "all", _draw(), once, CPU)) == {"transform", "classifier"}


def test_any_other_defense_is_trained_as_a_whole() -> None:
    system = NoDefense(classifier())
    assert not isinstance(system, Retunes)
    assert variants(system) == ["all"]
    made = retuned(system, "all", _draw(), RetuningParams(epochs=1), CPU)
    statistics = [name for name in made.state_dict() if name.endswith("running_mean")]
    before = system.state_dict()
    assert statistics
    assert not any(torch.equal(before[name], made.state_dict()[name]) for name in statistics)


def test_the_same_draw_gives_the_same_model(refine: Refine) -> None:
    one, other = (retuned(refine, "all", _draw(), RetuningParams(epochs=2), CPU) for _ in range(2))
    assert same_tensors(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("count", [8, 9, 10, 17])
def test_every_image_is_trained_on_once_in_an_epoch_and_none_alone(count: int) -> None:
    sizes: list[int] = []

    class Counting(NoDefense):
        def forward(self, pixels: Tensor) -> Tensor:
            sizes.append(len(pixels))
            return super().forward(pixels)

    retuned(Counting(classifier()), "all", _draw(count), RetuningParams(epochs=2, batch_size=8), CPU)
    half = len(sizes) // 2
    assert sizes[:half] == sizes[half:]
    assert sum(sizes[:half]) == count
    assert min(sizes) > 1


def test_a_defense_that_passes_no_gradient_on_is_named() -> None:
    class Deaf(NoDefense):
        title = "Deaf"

        @torch.no_grad()
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels)

    with pytest.raises(UserError, match="Deaf passes no gradient on"):
        retuned(Deaf(classifier()), "all", _draw(), RetuningParams(), CPU)


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="left infinite weights"):
        retuned(_system(math.nan, 1.0), "all", drawn(*_sets(), PARAMS, 1), PARAMS, CPU)
