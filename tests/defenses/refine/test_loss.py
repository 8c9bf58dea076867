"""The loss of REFINE: numbers on record, and a slow implementation that makes both views."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refine.defenses.refine.training.loss import supcon, utility


def _utility_slowly(logits: Tensor, labels: list[int]) -> float:
    """The formula, element by element."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        whole = sum(math.exp(score) for score in row)
        for place, score in enumerate(row):
            value = math.exp(score) / whole
            total -= math.log(value) if place == label else math.log(1 - value)
    return total / logits.numel()


def _supcon_slowly(images: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The formula over an index set of 2N rows: every image twice, every pair looked at."""
    flat = images.flatten(1)
    rows = [row / row.norm() for row in [*flat, *flat]]
    twice = labels.tolist() * 2
    total = images.new_zeros(())
    for i, anchor in enumerate(rows):
        others = [a for a in range(len(rows)) if a != i]
        scores = {a: anchor @ rows[a] / temperature for a in others}
        all_of_them = torch.logsumexp(torch.stack([scores[a] for a in others]), dim=0)
        positives = [a for a in others if twice[a] == twice[i]]
        total = total + sum(scores[a] - all_of_them for a in positives) / len(positives)
    return -(temperature / 0.07) * total / len(rows)


@pytest.mark.parametrize(("classes", "expected"), [(10, 0.32508), (50, 0.09804)])
def test_utility_at_uniform_answers_is_the_number_on_record(classes: int, expected: float) -> None:
    uniform = torch.full((7, classes), 3.0)
    assert utility(uniform, torch.arange(7) % classes, "binary").item() == pytest.approx(expected, abs=5e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(count=st.integers(1, 8), classes=st.integers(2, 12), seed=st.integers(0, 1000))
def test_utility_is_the_formula(count: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (count,), generator=generator)
    assert utility(scores, labels, "binary").item() == pytest.approx(_utility_slowly(scores, labels.tolist()), rel=1e-9)


def test_utility_is_torch_s_own_loss_where_that_one_is_exact() -> None:
    logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(64) % 10
    wanted = torch.nn.functional.one_hot(labels, 10).float()
    own = torch.nn.functional.binary_cross_entropy(logits.softmax(dim=1), wanted)
    assert utility(logits, labels, "binary").item() == pytest.approx(own.item(), rel=1e-5)


def test_utility_of_certain_answers_is_finite_and_says_where_to_go() -> None:
    certain = (200 * torch.eye(4)).requires_grad_()
    assert utility(certain, torch.arange(4), "binary").item() == pytest.approx(0, abs=1e-6)
    wrong = utility(certain, torch.tensor([1, 2, 3, 0]), "binary")
    # 200 for the label's probability, 200 less ln 3 for the complement of the wrong one's
    assert wrong.item() == pytest.approx((400 - math.log(3)) / 4, rel=1e-5)
    wrong.backward()
    assert certain.grad is not None
    assert torch.isfinite(certain.grad).all()
    assert (certain.grad.diagonal() > 0.05).all()
    assert (certain.grad[torch.arange(4), torch.tensor([1, 2, 3, 0])] < -0.05).all()


def test_utility_in_its_categorical_form_is_the_formula_of_the_paper() -> None:
    scores = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([3, 0, 1, 1, 2])
    slowly = [
        -math.log(math.exp(row[label]) / sum(map(math.exp, row)))
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    assert utility(scores, labels, "categorical").item() == pytest.approx(sum(slowly) / 5)


def test_utility_passes_a_nan_on() -> None:
    assert utility(torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), "binary").isnan()


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [5.0, 5.0, -5.0]])
def test_the_gradient_of_utility_is_that_of_the_formula_also_where_answers_are_equal(scores: list[float]) -> None:
    logits = torch.tensor([scores], dtype=torch.float64, requires_grad=True)
    probabilities = torch.tensor([scores], dtype=torch.float64, requires_grad=True)
    utility(logits, torch.tensor([1]), "binary").backward()
    wanted = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    torch.nn.functional.binary_cross_entropy(probabilities.softmax(dim=1), wanted).backward()
    torch.testing.assert_close(logits.grad, probabilities.grad)


def test_supcon_of_constant_images_is_ln_511_in_a_batch_of_256() -> None:
    images = torch.full((256, 3, 2, 2), 0.3)
    assert supcon(images, torch.arange(256) % 10, 0.07).item() == pytest.approx(math.log(511), abs=1e-4)
    assert math.log(511) == pytest.approx(6.2364, abs=5e-5)


def test_supcon_of_one_hot_class_images_is_the_bound_on_record() -> None:
    labels = torch.arange(256) % 10
    images = torch.eye(10, dtype=torch.float64)[labels]
    expected = 0.0
    for label in labels.tolist():
        same = 2 * int((labels == label).sum())
        expected += math.log(same - 1 + (512 - same) * math.exp(-1 / 0.07)) / 256
    value = supcon(images, labels, 0.07).item()
    assert value == pytest.approx(expected, abs=1e-9)
    assert value == pytest.approx(3.916, abs=5e-4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    temperature=st.sampled_from([0.07, 0.1, 0.5]),
    seed=st.integers(0, 1000),
)
def test_supcon_is_the_formula_with_both_views_in_value_and_gradient(
    labels: list[int], temperature: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(len(labels), 3, 2, 2, generator=generator, dtype=torch.float64)
    values, gradients = [], []
    for function in (supcon, _supcon_slowly):
        images = drawn.clone().requires_grad_()
        value = function(images, torch.tensor(labels), temperature)
        value.backward()
        assert images.grad is not None
        values.append(value.detach())
        gradients.append(images.grad)
    torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-10)


def test_another_temperature_carries_the_factor_of_the_reference() -> None:
    images = torch.full((16, 3, 2, 2), 0.5)
    labels = torch.zeros(16, dtype=torch.int64)
    assert supcon(images, labels, 0.1).item() == pytest.approx(0.1 / 0.07 * math.log(31), rel=1e-5)


def test_supcon_in_float32_agrees_with_float64() -> None:
    images = torch.rand(64, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 10
    assert supcon(images.float(), labels, 0.07).item() == pytest.approx(supcon(images, labels, 0.07).item(), rel=1e-5)


def test_supcon_does_not_depend_on_the_order_of_the_batch_or_the_scale_of_an_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, 3, 4, 4, dtype=torch.float64, generator=generator)
    labels = torch.arange(12) % 3
    order = torch.randperm(12, generator=generator)
    scaled = images * (1 + torch.rand(12, 1, 1, 1, dtype=torch.float64, generator=generator))
    expected = supcon(images, labels, 0.07).item()
    assert supcon(images[order], labels[order], 0.07).item() == pytest.approx(expected, rel=1e-10)
    assert supcon(scaled, labels, 0.07).item() == pytest.approx(expected, rel=1e-10)


def test_black_images_have_a_finite_loss_and_gradient() -> None:
    images = torch.zeros(6, 3, 4, 4)
    images[:3] = 0.5
    images.requires_grad_()
    loss = supcon(images, torch.arange(6) % 2, 0.07)
    loss.backward()
    assert images.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(images.grad).all()
