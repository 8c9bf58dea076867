"""Training an encoder against a perturbation that is the same for all images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from refine.defending.pseudo_labels import PseudoLabels
from refine.defenses.refine.training.encoder import EncoderTask, train_encoder
from refine.defenses.refine.training.universal_perturbation import UniversalPerturbation
from refine.training.checkpoint import Checkpoints
from refine.training.training_set import Resident
from support import synthetic
from tiny import CPU, classifier, defense, refine_params, same_tensors

BOUND = 0.05
ENCODER = {"epochs": 3, "batch_size": 8, "optimizer": {"lr": 0.05}, "augment": {"flip": 0.5}}
KINDS = {"labels": "of", "probabilities": "logits_of", "features": "features_of"}


def _perturbation(bound: float = BOUND, warp: float = 0) -> UniversalPerturbation:
    return UniversalPerturbation(bound, warp, Generator().manual_seed(1))


def _changes(perturbation: UniversalPerturbation) -> Tensor:
    """The different changes of gray images, float [M, 3, 4, 4]; none first."""
    pixels = torch.full((64, 3, 4, 4), 0.5)
    changes = (perturbation.added(pixels) - pixels).detach()
    return torch.stack(sorted(changes.unique(dim=0), key=lambda change: float(change.abs().sum())))


def _steps(perturbation: UniversalPerturbation, count: int, pixels: Tensor | None = None) -> None:
    """Steps for a loss that is the sum of all values."""
    for _ in range(count):
        images = torch.rand(64, 3, 4, 4) if pixels is None else pixels
        perturbation.added(images).sum().backward()  # type: ignore[no-untyped-call]
        perturbation.follow()


def test_about_half_of_the_images_are_changed_alike_within_the_bound() -> None:
    pixels = 0.1 + 0.8 * torch.rand(400, 3, 4, 4)
    images = _perturbation().added(pixels)
    assert images.is_contiguous(memory_format=torch.channels_last)
    changes = (images - pixels).detach()
    changed = changes.abs().amax(dim=(1, 2, 3)) > 0
    assert 150 < changed.sum() < 250
    assert torch.allclose(changes[changed], changes[changed][:1], atol=1e-6)
    assert 0.9 * BOUND < changes.abs().max() <= BOUND + 1e-6


def test_it_moves_to_where_the_loss_grows_and_no_further_than_the_bound() -> None:
    perturbation = _perturbation()
    _steps(perturbation, 12)
    assert torch.allclose(_changes(perturbation)[-1], torch.full((3, 4, 4), BOUND), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_stay_in_range_and_the_search_goes_on_there(value: float) -> None:
    perturbation, pixels = _perturbation(), torch.full((64, 3, 4, 4), value)
    images = perturbation.added(pixels)
    assert ((images >= 0) & (images <= 1)).all()
    assert (images != pixels).any()
    _steps(perturbation, 12, pixels)
    assert torch.allclose(_changes(perturbation)[-1], torch.full((3, 4, 4), BOUND), atol=1e-6)


def _slope(columns: bool) -> Tensor:
    """Images that get brighter by a hundredth with each pixel to the right, or down; float [64, 3, 8, 8]."""
    ramp = torch.arange(8) / 100
    return (ramp.view(1, -1) if columns else ramp.view(-1, 1)).expand(64, 3, 8, 8).contiguous()


def test_a_warp_reads_pixels_from_where_the_shifts_say() -> None:
    perturbation = _perturbation(0, 2)
    shifts = torch.zeros(1, 2, 5, 5)
    shifts[:, 0], shifts[:, 1] = 2, -1  # two to the right and one up
    perturbation.load({"shifts": shifts, "steps": torch.tensor(1)})
    pixels = torch.rand(64, 3, 8, 8)
    images = perturbation.added(pixels).detach()
    changed = (images - pixels).abs().amax(dim=(1, 2, 3)) > 0
    assert 16 < changed.sum() < 48
    assert torch.allclose(images[changed][:, :, 1:, :-2], pixels[changed][:, :, :-1, 2:], atol=1e-5)
    assert torch.allclose(images[changed][:, :, 0, :-2], pixels[changed][:, :, 0, 2:], atol=1e-5), "as at the edge"


@pytest.mark.parametrize("columns", [True, False])
def test_a_warp_moves_to_where_the_loss_grows_and_no_further_than_the_bound(columns: bool) -> None:
    perturbation = _perturbation(0, 1.5)
    _steps(perturbation, 12, _slope(columns))
    shifts = perturbation.state()["shifts"][0, 0 if columns else 1]
    assert torch.allclose(shifts[:, :-1] if columns else shifts[:-1], torch.tensor(1.5))
    assert perturbation.state()["shifts"].abs().max() <= 1.5


def test_values_and_places_are_changed_together() -> None:
    perturbation = _perturbation(BOUND, 1.5)
    _steps(perturbation, 12, _slope(True))
    assert set(perturbation.state()) == {"values", "shifts", "steps"}
    pixels = _slope(True)
    changes = (perturbation.added(pixels) - pixels).detach().flatten(1)
    inner = changes.view(64, 3, 8, 8)[:, :, :, 1:-3]
    changed = inner.amax(dim=(1, 2, 3)) > 0
    assert torch.allclose(inner[changed], torch.tensor(BOUND + 0.015), atol=1e-4)


def test_after_some_steps_another_one_is_sought() -> None:
    perturbation = _perturbation()
    _steps(perturbation, 29)
    last = _changes(perturbation)[-1]
    _steps(perturbation, 1)
    assert (_changes(perturbation)[-1] - last).abs().max() > BOUND / 2


def test_without_a_loss_there_is_nowhere_to_go() -> None:
    with pytest.raises(RuntimeError, match="no loss"):
        _perturbation().follow()


def test_a_state_is_where_another_one_goes_on() -> None:
    one, other = _perturbation(), _perturbation()
    assert one.state() == {}
    _steps(one, 20)
    other.load(one.state())
    assert torch.equal(_changes(one)[-1], _changes(other)[-1])
    _steps(other, 10)
    assert (_changes(one)[-1] - _changes(other)[-1]).abs().max() > BOUND / 2, "it takes 30 steps in all"
    other.load({})
    assert other.state() == {}


def _trained(kept: Path | None = None, **changes: Any) -> dict[str, Tensor]:
    """The transform behind the encoder's training."""
    made = defense(classifier())
    params = refine_params(encoder=ENCODER, pseudo_labels="each_step")
    assert params.encoder is not None
    recipe = params.encoder.model_copy(update=changes)  # learns features, too, which would be refused of a U-Net
    images = Resident(synthetic(48)[0], ())
    answers = PseudoLabels(made.classifier, params.recipe, False, CPU, "fp32", recipe.learns)
    torch.manual_seed(1)
    head = made.transform.begin(made.classifier, 3, lambda: images.pixels)
    train_encoder(recipe, 1, made, head, images, answers, CPU, Checkpoints(kept) if kept else None)
    return {name: tensor.clone() for name, tensor in made.transform.state_dict().items()}


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: dict[str, Any] = {"universal_perturbation": BOUND, "universal_warp": 1.0, "precise_statistics": True}
    whole = _trained(**bounds)
    real, calls = EncoderTask.begin_epoch, []

    def interrupted(task: EncoderTask, epoch: int) -> None:
        calls.append(epoch)
        if calls == [1, 2, 3]:
            raise KeyboardInterrupt
        real(task, epoch)

    monkeypatch.setattr(EncoderTask, "begin_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _trained(tmp_path, **bounds)
    assert same_tensors(_trained(tmp_path, **bounds), whole)
    assert calls == [1, 2, 3, 3]
    assert same_tensors(_trained(tmp_path, **bounds), whole), "behind the last epoch"


def test_the_encoder_meets_one_that_is_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    follow, states = UniversalPerturbation.follow, []

    def followed(perturbation: UniversalPerturbation) -> None:
        follow(perturbation)
        states.append(perturbation.state())

    sought = _trained(universal_perturbation=BOUND)
    monkeypatch.setattr(UniversalPerturbation, "follow", followed)
    assert same_tensors(_trained(universal_perturbation=BOUND), sought)
    assert [int(state["steps"]) for state in states] == list(range(1, 19)), "one in all three epochs of six batches"
    assert not torch.equal(states[0]["values"], states[-1]["values"])
    monkeypatch.setattr(UniversalPerturbation, "follow", lambda _: None)
    assert not same_tensors(_trained(universal_perturbation=BOUND), sought)


def test_the_encoder_meets_random_patterns() -> None:
    assert same_tensors(_trained(random_patterns=0.3), _trained(random_patterns=0.3))
    assert not same_tensors(_trained(random_patterns=0.3), _trained())


def test_batch_statistics_are_taken_anew_once_the_encoder_is_trained() -> None:
    precise, usual = _trained(random_patterns=0.3, precise_statistics=True), _trained(random_patterns=0.3)
    differing = {name.rpartition(".")[2] for name, tensor in precise.items() if not torch.equal(tensor, usual[name])}
    assert differing == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("learns", KINDS)
def test_the_classifier_is_asked_about_images_as_they_are(learns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []
    real = getattr(PseudoLabels, KINDS[learns])

    def watched(answers: PseudoLabels, pixels: Tensor) -> Any:
        asked.append(pixels)
        return real(answers, pixels)

    monkeypatch.setattr(PseudoLabels, KINDS[learns], watched)
    if learns == "features":
        monkeypatch.setattr("refine.defenses.refine.training.encoder.functional.cosine_similarity", _no_features)
    _trained(learns=learns, universal_perturbation=BOUND, random_patterns=0.5)
    levels = torch.cat(asked) * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert not levels.requires_grad


def _no_features(encoded: Tensor, features: Tensor) -> Tensor:
    """Stands in where the encoder, a U-Net's, has other features than the classifier."""
    return encoded.mean(dim=1) + features.mean(dim=1)
