"""The sample-distinguishment module: its loss, its transformations, FCT, and what it makes of a training set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import functional

from refine.core.files import sha256_of
from refine.models.architecture import named
from refine.splits.sd import split as sd
from refine.splits.sd import training
from refine.splits.sd.shape import LEAST, enrichment, separation
from refine.splits.sd.split import Params, split
from refine.splits.sd.training import Measure, intra
from refine.splits.sd.transformation import Draws, drawn, transformed
from refine.splitting.groups import CLEAN, POISONED
from refine.splitting.protocol import Outcome, Task
from refine.training.checkpoint import Checkpoints
from refine.training.training_set import Resident
from support import synthetic
from tiny import CPU, WIDTH, Poisoned, badnets, classifier

RECIPE = {"epochs": 3, "batch_size": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """48 training images."""
    return badnets(tmp_path_factory.mktemp("data"))


def _task(data: Poisoned, checkpoints: Checkpoints | None = None, **settings: Any) -> Task:
    params = Params.model_validate({"backdoor_epochs": 1, "draws": 2, "recipe": RECIPE, **settings})
    return Task(params, data.outputs.train, named(name="resnet18", width=WIDTH), CPU, checkpoints)


def _images(count: int = 12) -> Tensor:
    return synthetic(count)[0] / 255


def test_classes_of_one_direction_and_orthogonal_ones_have_the_loss_in_closed_form() -> None:
    labels = torch.arange(12) % 4
    shared = torch.rand(12, 1) * torch.rand(1, 7)
    assert intra(shared, labels, 10).item() == pytest.approx(3 / 4)
    assert intra(torch.eye(4)[labels], labels, 10).item() == pytest.approx(0)
    simplex = torch.eye(4) - 0.25
    assert intra(simplex[labels], labels, 10).item() == pytest.approx(-1 / 4)


def test_the_loss_is_the_mean_of_all_products_of_centers_but_their_own() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(20, 5), torch.randint(3, (20,))
    centers = [features[labels == label].mean(dim=0) for label in range(3)]
    centers = [center / center.norm() for center in centers]
    total = sum(float(a @ b) for i, a in enumerate(centers) for j, b in enumerate(centers) if i != j)
    assert intra(features, labels, 6).item() == pytest.approx(total / 9, abs=1e-6)


def test_dead_features_have_the_least_loss_and_no_gradient_that_is_not_finite() -> None:
    features = torch.zeros(6, 4, requires_grad=True)
    loss = intra(features, torch.arange(6) % 3, 3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_no_rotation_and_no_translation_leave_images_and_give_an_fct_of_zero() -> None:
    images = _images()
    nothing = drawn(12, 16, 0, 0, torch.Generator().manual_seed(1))
    assert torch.equal(transformed(images, nothing), images)
    found = Measure(Resident(synthetic(12)[0], ()), [nothing], CPU, "fp32").of(classifier())
    assert not found["fct"].any()
    assert (found["norm"] > 0).all()


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_quarter_turn_is_exact_and_a_shift_is_black_where_nothing_is(quarter: int) -> None:
    images = _images()
    angles = torch.full((12,), quarter * math.pi / 2)
    turned = transformed(images, Draws(angles, torch.zeros(12, 2)))
    assert torch.equal(turned, images.rot90(quarter, (2, 3)))
    moved = transformed(images, Draws(angles, torch.tensor([[3.0, -2.0]] * 12)))
    assert torch.equal(moved[:, :, :-2, 3:], turned[:, :, 2:, :-3])
    assert not moved[:, :, -2:].any()
    assert not moved[:, :, :, :3].any()


def test_it_turns_as_torchvision_does_up_to_single_pixels() -> None:
    images = _images()
    turned = transformed(images, Draws(torch.full((12,), math.radians(30)), torch.zeros(12, 2)))
    assert (turned != functional.rotate(images, 30)).any(dim=1).double().mean() < 0.02


def test_transformations_are_drawn_evenly_within_their_bounds() -> None:
    by = drawn(4000, 20, 180, 0.2, torch.Generator().manual_seed(1))
    assert by.angles.abs().max() <= math.pi
    assert by.angles.std() == pytest.approx(math.pi / math.sqrt(3), rel=0.05)
    assert set(by.shifts.unique().tolist()) == set(range(-4, 5))
    assert torch.equal(by.angles, drawn(4000, 20, 180, 0.2, torch.Generator().manual_seed(1)).angles)


@torch.no_grad()
def test_fct_is_the_mean_squared_difference_of_features_averaged_over_draws() -> None:
    of, images = classifier(), synthetic(300)[0]  # more than are computed at once
    draws = torch.Generator().manual_seed(1)
    by = [drawn(300, 16, 90, 0.1, draws) for _ in range(2)]
    found = Measure(Resident(images, (torch.arange(300),), sizes=[7, 293]), by, CPU, "fp32").of(of)
    pixels, network = images / 255, of.network
    features: Any = network.features
    own = features(of.normalize(pixels))
    each = [(own - features(of.normalize(transformed(pixels, draw)))).square().mean(dim=1) for draw in by]
    torch.testing.assert_close(found["fct"], (each[0] + each[1]) / 2, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found["norm"], own.norm(dim=1), rtol=1e-4, atol=1e-4)
    assert (found["fct"] >= 0).all()


@pytest.fixture(scope="module")
def made(data: Poisoned) -> Outcome:
    """A split of 48 images."""
    return split(_task(data))


def test_the_groups_have_the_wanted_sizes_and_the_extreme_values(made: Outcome) -> None:
    clean, poisoned = (made.fct[made.groups == group] for group in (CLEAN, POISONED))
    assert (len(clean), len(poisoned)) == (int(0.2 * 48), int(0.05 * 48)) == (9, 2)
    rest = made.fct[(made.groups != CLEAN) & (made.groups != POISONED)]
    assert clean.max() <= rest.min()
    assert rest.max() <= poisoned.min()


def test_the_first_epochs_learn_labels_and_the_others_push_classes_apart(made: Outcome) -> None:
    rows = made.history
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["loss"] == pytest.approx(rows[0]["cross_entropy"])
    assert [row["loss"] for row in rows[1:]] == pytest.approx([row["intra"] for row in rows[1:]])
    assert rows[2]["intra"] < rows[1]["intra"] < rows[0]["intra"]
    assert made.epochs is not None
    assert made.epochs.shape == (3, 48)
    assert torch.equal(made.epochs[2], made.fct)


def test_it_is_the_same_each_time_and_another_with_another_seed(made: Outcome, data: Poisoned) -> None:
    assert torch.equal(split(_task(data)).fct, made.fct)
    assert not torch.equal(split(_task(data, seed=2)).fct, made.fct)


def test_the_anchor_keeps_cross_entropy_in_the_loss(data: Poisoned) -> None:
    rows = split(_task(data, intra_ce_weight=0.5)).history
    assert rows[2]["loss"] == pytest.approx(rows[2]["intra"] + 0.5 * rows[2]["cross_entropy"], rel=1e-4)


def test_it_goes_on_after_an_interruption_as_if_there_had_been_none(
    made: Outcome, data: Poisoned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.Sensitive.after_epoch

    def interrupted(self: training.Sensitive, epoch: int, weights: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        real(self, epoch, weights)

    monkeypatch.setattr(training.Sensitive, "after_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        split(_task(data, Checkpoints(tmp_path)))
    monkeypatch.undo()
    again = split(_task(data, Checkpoints(tmp_path)))
    assert torch.equal(again.fct, made.fct)
    assert again.history == made.history
    assert again.epochs is not None
    assert made.epochs is not None
    assert torch.equal(again.epochs, made.epochs)


def test_the_truth_has_no_part_in_it(made: Outcome, data: Poisoned, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Tensor:
        raise AssertionError("it looked at a flag")

    monkeypatch.setattr("refine.training.training_set.flags", refused)
    assert torch.equal(split(_task(data)).fct, made.fct)


def _two_kinds(apart: float) -> tuple[Tensor, Tensor]:
    """FCT of 300 images of three labels; 50 of the 100 that have label 0 lie apart by so many standard deviations."""
    logs, labels = torch.randn(300, generator=torch.Generator().manual_seed(3)), torch.arange(300) % 3
    logs[(labels == 0) & (torch.arange(300) < 150)] += apart
    return 10 ** (logs / 5), labels


def test_poison_within_one_class_is_noticed_and_none_is_not() -> None:
    assert separation(*_two_kinds(0))[0] < LEAST
    assert separation(*_two_kinds(4)) == (pytest.approx(4, abs=0.8), 0)
    assert separation(torch.zeros(300), torch.zeros(300))[0] == 0
    assert separation(torch.rand(10), torch.zeros(10))[0] == 0


def test_a_label_is_enriched_where_it_is_more_frequent_than_among_all() -> None:
    labels, group = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1]), torch.tensor([True, True, True] + [False] * 5)
    assert enrichment(labels, group, 0) == pytest.approx(8 / 3)
    assert enrichment(labels, ~group, 0) == 0


def test_the_gate_names_a_collapse_and_a_shape_without_two_kinds() -> None:
    fine = {"frac_zero_fct": 0.1, "separation": 3.0, "enrichment": 4.0}
    assert sd._refusal(fine, Params()) is None
    assert "collapsed, 30.0% of the images have an FCT of zero" in str(
        sd._refusal({**fine, "frac_zero_fct": 0.3}, Params())
    )
    assert "no two kinds" in str(sd._refusal({**fine, "separation": 1.0}, Params()))
    assert "may have the smallest" in str(sd._refusal({**fine, "enrichment": 0.5}, Params()))


def test_a_split_that_does_not_pass_tells_defenses_to_abstain_unless_told_otherwise(
    made: Outcome, data: Poisoned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sd, "LEAST", 1e9)
    one, other = split(_task(data)), split(_task(data, gate="ignore"))
    assert one.refusal == other.refusal
    assert one.refusal is not None
    assert (one.abstain, other.abstain) == (True, False)
    assert torch.equal(one.groups, made.groups)


def test_the_most_separated_epoch_of_step_b_can_count() -> None:
    params = Params.model_validate({"epoch": "separated", "backdoor_epochs": 1, "recipe": {"epochs": 4}})
    rows = [{"frac_zero_fct": zero, "separation": found} for zero, found in ((0, 9.0), (0, 2.0), (0, 3.0), (0.3, 5.0))]
    assert sd._chosen(rows, params) == 2
    assert sd._chosen(rows, Params.model_validate({"backdoor_epochs": 1, "recipe": {"epochs": 4}})) == 3
    assert sd._chosen([{**row, "frac_zero_fct": 1.0} for row in rows], params) == 3


def test_published_settings_are_the_defaults_but_for_the_draws() -> None:
    params = Params()
    assert (params.alpha_c, params.alpha_p, params.backdoor_epochs, params.recipe.epochs) == (0.2, 0.05, 2, 12)
    assert (params.degrees, params.translate, params.draws, params.intra_ce_weight) == (180, 0.2, 4, 0)
    optimizer = params.recipe.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay, params.recipe.batch_size) == (
        0.01,
        0.9,
        5e-4,
        128,
    )


def test_no_epoch_of_step_b_is_refused() -> None:
    with pytest.raises(ValidationError, match="backdoor_epochs leaves no epoch of step B"):
        Params.model_validate({"backdoor_epochs": 12})


def test_the_training_set_stays_as_it_is(data: Poisoned) -> None:
    before = {path.name: sha256_of(path) for path in data.outputs.train.iterdir()}
    split(_task(data))
    assert {path.name: sha256_of(path) for path in data.outputs.train.iterdir()} == before
