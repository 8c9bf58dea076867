"""SSBA: its trigger against an independent, slow reading of the formulas, and that messages are hidden and read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from refine.attacks import ssba
from refine.core.errors import UserError
from refine.poisoning.attack import Setting
from refine.poisoning.steganography.networks import Decoder, Encoder, grid_side
from refine.poisoning.steganography.training import likeness, trained_pair, visibility
from support import synthetic
from tiny import CPU, is_nearest, ready

QUICK = {"bits": 5, "width": 3, "recipe": {"epochs": 1, "batch_size": 4}}
Array = NDArray[np.float64]


def _convolved(inputs: Array, tensors: dict[str, Tensor], name: str, stride: int = 1) -> Array:
    """A 3 x 3 convolution of one image [C, H, W] with zeros around it, term by term."""
    weight = tensors[f"encoder.{name}.weight"].numpy().astype(np.float64)
    bias = tensors[f"encoder.{name}.bias"].numpy().astype(np.float64)
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1)))
    height, width = (math.ceil(size / stride) for size in inputs.shape[1:])
    out = np.zeros((len(weight), height, width))
    for channel, row, column in np.ndindex(out.shape):
        window = padded[:, row * stride : row * stride + 3, column * stride : column * stride + 3]
        out[channel, row, column] = bias[channel] + (weight[channel] * window).sum()
    return out


def _triggered_slowly(image: Tensor, tensors: dict[str, Tensor], strength: float) -> Array:
    """clip is left to the caller."""
    side = image.shape[-1]
    levels = image.numpy().astype(np.float64)
    secret = tensors["secret"].tolist()
    grid = math.ceil(math.sqrt(len(secret)))
    plane = np.zeros((1, side, side))
    for row in range(side):
        for column in range(side):
            cell = grid * (row * grid // side) + column * grid // side
            plane[0, row, column] = 2 * secret[cell] - 1 if cell < len(secret) else 0
    fine = np.maximum(_convolved(np.concatenate([2 * levels / 255 - 1, plane]), tensors, "inlet"), 0)
    coarse = np.maximum(_convolved(fine, tensors, "down", stride=2), 0)
    coarse = np.maximum(_convolved(coarse, tensors, "inner"), 0)
    places = np.arange(side) * coarse.shape[1] // side
    grown = np.maximum(_convolved(coarse[:, places][:, :, places], tensors, "up"), 0)
    return levels + strength * np.tanh(_convolved(np.concatenate([fine, grown, plane]), tensors, "outlet"))


@pytest.mark.parametrize("side", [8, 11])
def test_the_trace_of_the_secret_is_added_to_each_image(side: int) -> None:
    made = ready("ssba", side, strength=100.0, **QUICK)
    images, _ = synthetic(2, side, seed=3)
    for image, changed in zip(images, made.trigger(images, torch.arange(2)), strict=True):
        assert is_nearest(changed, _triggered_slowly(image, made.tensors, 100.0))


def test_training_images_get_the_trigger_of_test_images() -> None:
    made = ready("ssba", 16, **QUICK)
    images, _ = synthetic(4)
    assert torch.equal(made.poison(images, torch.arange(4)), made.trigger(images, torch.arange(4)))


def test_levels_do_not_depend_on_how_many_images_are_marked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ready("ssba", 16, strength=255.0, **QUICK)
    images, _ = synthetic(40)
    together = made.trigger(images, torch.arange(40))
    monkeypatch.setattr("refine.poisoning.overlay._PIXELS", 3 * 16**2)
    assert torch.equal(made.trigger(images, torch.arange(40)), together)


def test_no_channel_changes_by_more_than_the_strength() -> None:
    made = ready("ssba", 16, strength=5.0, **QUICK)
    made.tensors = {name: value if name == "secret" else 100 * value for name, value in made.tensors.items()}
    images, _ = synthetic(10)
    change = (made.trigger(images, torch.arange(10)).int() - images.int()).abs()
    assert int(change.max()) == 5


def test_each_image_has_a_trigger_of_its_own() -> None:
    made = ready("ssba", 16, strength=64.0, **QUICK)
    images = 60 + synthetic(6)[0] // 2
    change = made.trigger(images, torch.arange(6)).int() - images.int()
    assert len({trace.numpy().tobytes() for trace in change}) == 6


def test_another_seed_gives_another_secret_and_another_encoder() -> None:
    first, again, other = (ready("ssba", 8, seed=seed, **{**QUICK, "bits": 64}).tensors for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["secret"], other["secret"])
    assert not torch.equal(first["encoder.inlet.weight"], other["encoder.inlet.weight"])
    assert set(first["secret"].tolist()) == {0, 1}


def test_messages_are_read_back_and_the_traces_are_faint() -> None:
    images = 100 + synthetic(256, side=16, seed=9)[0] // 4
    params = ssba.Params.model_validate({"recipe": {"epochs": 10, "batch_size": 16}})
    pair = trained_pair(images, 9, 8, 16 / 255, (0.1, 0.0), params.recipe, torch.Generator().manual_seed(1), CPU)
    messages = torch.randint(0, 2, (64, 9)).float()
    with torch.no_grad():
        marked, logits = pair(images[:64] / 255, messages)
    assert float(((logits > 0) == (messages > 0)).float().mean()) > 0.9
    assert float((marked - images[:64] / 255).abs().max()) <= 16 / 255 + 1e-6


def test_visibility_is_the_change_in_relation_to_the_contrast_nearby() -> None:
    pixels, marked = torch.rand(2, 3, 7, 7), torch.rand(2, 3, 7, 7)
    total = 0.0
    gray = pixels.mean(dim=1).numpy().astype(np.float64)
    for image in range(2):
        for row in range(7):
            for column in range(7):
                window = gray[image, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
                change = (marked - pixels)[image, :, row, column].numpy().astype(np.float64)
                total += float(((change / (0.05 + window.std())) ** 2).sum())
    assert float(visibility(pixels, marked)) == pytest.approx(total / (2 * 3 * 49), rel=1e-4)


def test_likeness_is_the_cosine_of_the_traces_of_neighbors() -> None:
    traces = torch.randn(7, 3, 4, 4)
    traces[2] = 0.5 * traces[3]
    cosines = []
    for first in (0, 2, 4):
        one, other = (traces[place].flatten().numpy().astype(np.float64) for place in (first, first + 1))
        cosines.append(max(0.0, float(one @ other) / math.sqrt(float(one @ one) * float(other @ other))))
    assert cosines[1] == pytest.approx(1)
    assert float(likeness(traces)) == pytest.approx(sum(cosines) / 3, rel=1e-4)
    assert float(likeness(traces[:1])) == 0


def test_a_flat_image_pays_more_than_a_busy_one() -> None:
    flat, busy = torch.full((1, 3, 16, 16), 0.5), torch.rand(1, 3, 16, 16)
    assert float(visibility(flat, flat + 0.02)) > 4 * float(visibility(busy, busy + 0.02))


@pytest.mark.parametrize(("bits", "side"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (100, 10), (101, 11)])
def test_every_bit_has_a_cell_of_the_smallest_grid(bits: int, side: int) -> None:
    assert grid_side(bits) == side
    assert Decoder(bits, 2)(torch.rand(2, 3, 12, 12)).shape == (2, bits)
    assert Encoder(bits, 2, 0.1)(torch.rand(2, 3, 12, 12), torch.zeros(2, bits)).shape == (2, 3, 12, 12)


def test_images_of_other_classes_than_the_target_are_poisoned() -> None:
    labels = torch.arange(1_000) % 10
    made = ready("ssba", 8, target=4, **QUICK)
    rows = made.choose(labels, torch.Generator().manual_seed(1))
    assert len(rows.poisoned) == 90
    assert 4 not in labels[rows.poisoned].tolist()


def test_a_message_with_more_bits_than_pixels_is_refused() -> None:
    ssba.Attack(ssba.Params(bits=64), Setting(10, 8))
    with pytest.raises(UserError, match="a message of 65 bits does not fit images of 8 pixels"):
        ssba.Attack(ssba.Params(bits=65), Setting(10, 8))
