"""The label map: the permutations on record, no fixed point, and the direction."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refine.defenses.refine.model.label_map import derangement, remap


def test_seed_666_gives_the_permutation_of_the_public_log() -> None:
    assert derangement(10, 666).tolist() == [5, 7, 0, 9, 3, 4, 8, 1, 6, 2]


def test_seed_666_with_fifty_classes_gives_the_one_on_record() -> None:
    assert derangement(50, 666).tolist()[:10] == [17, 32, 48, 26, 42, 8, 47, 3, 49, 0]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(classes=st.integers(2, 60), seed=st.integers(0, 2**32 - 1))
def test_it_is_a_permutation_without_fixed_point(classes: int, seed: int) -> None:
    permutation = derangement(classes, seed)
    assert permutation.dtype == torch.int64
    assert sorted(permutation.tolist()) == list(range(classes))
    assert all(place != label for place, label in enumerate(permutation.tolist()))
    assert torch.equal(permutation, derangement(classes, seed))


def test_seeds_reach_different_permutations() -> None:
    assert len({tuple(derangement(4, seed).tolist()) for seed in range(200)}) == 9


@settings(max_examples=50, deadline=None, derandomize=True)
@given(classes=st.integers(2, 30), seed=st.integers(0, 1000))
def test_the_score_of_class_j_moves_to_its_place_in_the_permutation(classes: int, seed: int) -> None:
    permutation = derangement(classes, seed)
    moved = remap(torch.eye(classes), permutation)
    for label in range(classes):
        assert moved[label].tolist() == [float(place == permutation[label]) for place in range(classes)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(classes=st.integers(2, 30), seed=st.integers(0, 1000))
def test_every_score_arrives_and_the_inverse_brings_it_back(classes: int, seed: int) -> None:
    permutation = derangement(classes, seed)
    scores = torch.rand(4, classes, generator=torch.Generator().manual_seed(seed))
    moved = remap(scores, permutation)
    for row in range(4):
        for label in range(classes):
            assert moved[row, permutation[label]] == scores[row, label]
    assert torch.equal(remap(moved, torch.argsort(permutation)), scores)


def test_the_direction_is_not_the_inverse() -> None:
    permutation = derangement(10, 666)
    assert remap(torch.eye(10), permutation)[0].argmax() == 5
    assert not torch.equal(remap(torch.eye(10), permutation), remap(torch.eye(10), torch.argsort(permutation)))


def test_gradients_go_back_the_way_the_scores_came() -> None:
    permutation = derangement(10, 666)
    scores = torch.zeros(1, 10, requires_grad=True)
    remap(scores, permutation)[0, 5].backward()
    assert scores.grad is not None
    assert scores.grad[0].tolist() == [1.0] + [0.0] * 9
