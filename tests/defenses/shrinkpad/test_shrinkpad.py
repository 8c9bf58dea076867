"""ShrinkPad against translates made one by one, and against what must not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from refine.core.errors import UserError
from refine.defenses.shrinkpad.defense import Defended, Params
from refine.models.classifier import Classifier
from tiny import MEAN, classifier, classifier_folder

SIDE = 16


@pytest.fixture(scope="module")
def model() -> Classifier:
    """Of three classes, for images of 16 pixels."""
    made = classifier(side=SIDE)
    made.input_side = SIDE
    return made


def _images(count: int = 12) -> Tensor:
    """Without a black pixel."""
    return 0.2 + 0.8 * torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def _defended(model: Classifier, **settings: Any) -> Defended:
    return Defended(model, Params(**settings), SIDE).eval()


def _translates(image: Tensor, pad: int) -> list[Tensor]:
    """The smaller image at every place, by torch's own padding."""
    side = SIDE - pad
    small = functional.interpolate(image[None], size=(side, side), mode="bilinear")
    places = [(left, top) for left in range(pad + 1) for top in range(pad + 1)]
    return [functional.pad(small, (left, pad - left, top, pad - top))[0] for left, top in places]


def test_without_padding_the_answers_are_the_classifiers(model: Classifier) -> None:
    assert torch.equal(_defended(model, pad=0)(_images()), model(_images()))


def test_an_eighth_of_the_side_is_taken_which_is_the_published_four_at_32_pixels(model: Classifier) -> None:
    assert Defended(model, Params(), 32).pad == 4
    assert Defended(model, Params(), 224).pad == 28


def test_over_many_draws_an_image_becomes_each_of_its_translates_and_nothing_else(model: Classifier) -> None:
    (image,) = _images(1)
    pad = 2
    made = _defended(model, pad=pad)
    found = {tuple(made._placed(image[None], draw)[0].flatten().tolist()) for draw in range(200)}
    assert found == {tuple(each.flatten().tolist()) for each in _translates(image, pad)}


def test_different_images_take_different_places(model: Classifier) -> None:
    seen = _defended(model, pad=6).transformed(_images(60)) > 0
    corners = {tuple(image[0].nonzero()[0].tolist()) for image in seen}
    assert len(corners) > 20


def test_pixels_outside_of_the_smaller_image_are_black(model: Classifier) -> None:
    out = _defended(model, pad=4).transformed(_images())
    assert out.shape == (12, 3, SIDE, SIDE)
    assert ((out > 0).sum(dim=(1, 2, 3)) == 3 * (SIDE - 4) ** 2).all()


def test_or_have_the_color_that_normalization_takes_to_zero(model: Classifier) -> None:
    made = _defended(model, pad=4, fill="mean")
    inputs = made.network_inputs(made.transformed(torch.zeros(1, 3, SIDE, SIDE)))
    assert (inputs.abs() < 1e-6).sum() == 3 * (SIDE**2 - (SIDE - 4) ** 2)
    assert min(MEAN) > 0


def test_a_constant_image_keeps_its_constant_inside(model: Classifier) -> None:
    out = _defended(model, pad=3).transformed(torch.full((1, 3, SIDE, SIDE), 0.7))
    torch.testing.assert_close(out[out > 0], torch.full(((SIDE - 3) ** 2 * 3,), 0.7))


@pytest.mark.parametrize("draws", [1, 5])
def test_neither_order_nor_company_of_an_image_matters(model: Classifier, draws: int) -> None:
    made, images = _defended(model, pad=5, draws=draws), _images()
    whole = made.probabilities(images)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(made.probabilities(images[order]), whole[order])
    torch.testing.assert_close(torch.cat([made.probabilities(image[None]) for image in images]), whole)


def test_several_draws_are_averaged_as_probabilities(model: Classifier) -> None:
    made, images = _defended(model, pad=5, draws=3), _images()
    each = [model(made._placed(images, draw)).softmax(dim=1) for draw in range(3)]
    torch.testing.assert_close(made.probabilities(images), torch.stack(each).mean(dim=0))


def test_another_seed_takes_other_places(model: Classifier) -> None:
    one, other = (_defended(model, pad=5, seed=seed).transformed(_images()) for seed in (1, 2))
    assert not torch.equal(one, other)


def test_a_pad_that_leaves_nothing_is_refused(model: Classifier) -> None:
    with pytest.raises(UserError, match=r"defense_settings.shrinkpad.pad 16 leaves nothing of images of 16 pixels"):
        _defended(model, pad=16)


def test_other_pixels_are_refused_before_they_are_resized(model: Classifier) -> None:
    with pytest.raises(ValueError, match="give pixels float"):
        _defended(model)(torch.rand(2, 3, 32, 32))


def test_the_classifier_stays_as_it_was(tmp_path: Path) -> None:
    made = classifier_folder(tmp_path / "classifier", side=SIDE)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    _defended(made, pad=4)(_images())
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
