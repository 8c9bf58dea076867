"""The semi-supervised contrastive loss against its formula, one pair at a time."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from refine.defenses.dst.contrast import contrast
from refine.defenses.dst.defense import Positives

TAU = 0.1


def _views(count: int, seed: int = 0) -> Tensor:
    """Two views of each of `count` samples, unit vectors float64 [2 * count, 5]."""
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(2 * count, 5, generator=generator, dtype=torch.float64), dim=1)


def _positives(row: int, labels: list[int], clean: list[bool], kind: Positives) -> list[int]:
    """The other views that count as positives of one."""
    count = len(labels)
    if not clean[row % count]:
        return [(row + count) % (2 * count)]
    same = [other for other in range(2 * count) if other != row and labels[other % count] == labels[row % count]]
    return [other for other in same if kind == "label_any" or clean[other % count]]


def _slowly(views: Tensor, labels: list[int], clean: list[bool], temperature: float, kind: Positives) -> Tensor:
    losses = []
    for row, view in enumerate(views):
        scores = {other: view @ views[other] / temperature for other in range(len(views)) if other != row}
        everything = torch.logsumexp(torch.stack(list(scores.values())), dim=0)
        positives = _positives(row, labels, clean, kind)
        losses.append(-sum((scores[other] - everything for other in positives), torch.zeros(())) / len(positives))
    return torch.stack(losses) * (temperature / 0.07)


def _supcon_slowly(views: Tensor, labels: list[int], temperature: float) -> float:
    """The supervised contrastive loss (Khosla et al. 2020, equation 2), without any factor."""
    total = 0.0
    for row, view in enumerate(views):
        terms = {other: float(torch.exp(view @ views[other] / temperature)) for other in range(len(views))}
        others = sum(terms.values()) - terms[row]
        same = [o for o in terms if o != row and labels[o % len(labels)] == labels[row % len(labels)]]
        total -= sum(float(torch.log(torch.tensor(terms[o] / others))) for o in same) / len(same)
    return total / len(views)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    samples=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
    temperature=st.sampled_from([0.07, 0.1, 0.5]),
    kind=st.sampled_from(get_args(Positives)),
    seed=st.integers(0, 1000),
)
def test_it_is_the_formula_in_value_and_gradient(
    samples: list[tuple[int, bool]], temperature: float, kind: Positives, seed: int
) -> None:
    labels, clean = [label for label, _ in samples], [believed for _, believed in samples]
    fast, slow = (_views(len(samples), seed).requires_grad_() for _ in range(2))
    ours = contrast(fast, torch.tensor(labels), torch.tensor(clean), temperature, kind)
    theirs = _slowly(slow, labels, clean, temperature, kind)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    ours.mean().backward()
    theirs.mean().backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", get_args(Positives))
def test_where_all_are_clean_it_is_supcon_times_tau_over_its_base(kind: Positives) -> None:
    views, labels = _views(9), torch.arange(9) % 4
    loss = contrast(views, labels, torch.ones(9, dtype=torch.bool), TAU, kind).mean()
    assert loss.item() == pytest.approx(_supcon_slowly(views, labels.tolist(), TAU) * TAU / 0.07, rel=1e-6)


@pytest.mark.parametrize("kind", get_args(Positives))
def test_a_view_that_is_not_of_a_clean_sample_has_its_other_view_as_only_positive(kind: Positives) -> None:
    views, labels, clean = _views(6), torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([1, 0, 0, 1, 1, 0]).bool()
    losses = contrast(views, labels, clean, TAU, kind)
    similarity = (views @ views.T / TAU).fill_diagonal_(-torch.inf)
    for row in (1, 2, 5, 7, 8, 11):
        alone = similarity[row].logsumexp(dim=0) - similarity[row, (row + 6) % 12]
        assert losses[row].item() == pytest.approx(alone.item() * TAU / 0.07, rel=1e-9)


def test_positives_of_a_clean_sample_include_others_of_its_label_or_not() -> None:
    views, clean = _views(4), torch.tensor([True, True, False, False])
    labels, relabeled = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 0])
    for kind in get_args(Positives):
        same = torch.isclose(contrast(views, labels, clean, TAU, kind), contrast(views, relabeled, clean, TAU, kind))
        of_clean = same[[0, 1, 4, 5]]
        assert same[[2, 3, 6, 7]].all()
        assert of_clean.all() if kind == "label_clean_only" else not of_clean.any()


def test_a_lone_sample_has_nothing_to_be_told_from() -> None:
    views = _views(1).requires_grad_()
    loss = contrast(views, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool), TAU, "label_any")
    assert torch.allclose(loss, torch.zeros(2, dtype=torch.float64))
    loss.mean().backward()
    assert views.grad is not None
    assert torch.isfinite(views.grad).all()


def test_equal_views_of_a_whole_batch_have_a_finite_loss() -> None:
    views = functional.normalize(torch.ones(16, 4), dim=1).requires_grad_()
    contrast(views, torch.arange(8) % 3, torch.arange(8) % 2 == 0, TAU, "label_any").mean().backward()
    assert views.grad is not None
    assert torch.isfinite(views.grad).all()
