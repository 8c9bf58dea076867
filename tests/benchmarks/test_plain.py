"""The plain way computes what ours computes; else a comparison of their speed would say nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from benchmarks import images, plain, trainings
from benchmarks.input_path import WAYS, Place, Wanted, opened
from benchmarks.plain import PlainBackdoor, PlainRefine, two_view_supcon
from refine.backdoor.params import TrainBackdoorParams
from refine.backdoor.train import FIELDS
from refine.defenses.refine.training.loss import supcon
from refine.defenses.refine.training.params import TrainRefineParams
from refine.models.architecture import named
from refine.training.batches import Batch
from refine.training.recipe import Augment
from support import NARROW
from tiny import CPU

NETWORK = named(name="resnet18", width=8)


class NoBatches:
    """Stands where a task wants its data; steps are given theirs by hand."""

    def __len__(self) -> int:
        return 0

    def epoch(self, seed: int) -> None:
        raise AssertionError(seed)


def _batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(3)
    return torch.rand(count, 3, 32, 32, generator=generator), torch.arange(count) % images.CLASSES


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_two_views_give_the_loss_and_the_gradient_of_ours(temperature: float) -> None:
    pixels = _batch()[0].double().requires_grad_()
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5])
    ours, theirs = supcon(pixels, labels, temperature), two_view_supcon(pixels, labels, temperature)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, pixels)[0] for loss in (ours, theirs)]
    assert torch.allclose(*gradients, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("space", ["pixel", "normalized_clamp01"])
def test_a_plain_refine_step_has_our_loss(space: str) -> None:
    content = {
        "seed": 1,
        "transform": NARROW,
        "input_space": space,
        "recipe": {"augment": {}},
    }
    params = TrainRefineParams.model_validate(content)
    task = trainings.refine_task(params, NETWORK, NoBatches(), CPU, "fp32")
    defense = copy.deepcopy(task.defense).to(memory_format=torch.contiguous_format)
    pixels, labels = _batch()
    ours = task.step(Batch(pixels, ())).loss.item()
    assert PlainRefine(defense, params.loss, params.recipe.optimizer).step(pixels, labels) == pytest.approx(ours, 1e-5)


def test_a_plain_backdoor_step_has_our_loss() -> None:
    content = {"seed": 1, "network": NETWORK.model_dump(), "recipe": {"augment": {}}}
    params = TrainBackdoorParams.model_validate(content)
    task = trainings.backdoor_task(params, NoBatches(), CPU, "fp32")
    task.module.train()
    classifier = copy.deepcopy(task.classifier).to(memory_format=torch.contiguous_format)
    pixels, labels = _batch()
    ours = task.step(Batch(pixels, (labels, torch.zeros_like(labels)))).loss.item()
    assert PlainBackdoor(classifier, params.recipe.optimizer).step(pixels, labels) == pytest.approx(ours, 1e-5)


def test_plain_steps_learn() -> None:
    params = TrainBackdoorParams.model_validate({"seed": 1, "network": NETWORK.model_dump(), "recipe": "paper"})
    steps = PlainBackdoor(trainings.classifier(NETWORK, CPU).train(), params.recipe.optimizer)
    losses = [steps.step(*_batch()) for _ in range(5)]
    assert losses[-1] < losses[0] / 2


def test_all_ways_read_the_same_images_every_one_once(tmp_path: Path) -> None:
    shards = images.write(tmp_path / "shards", 50, samples_per_shard=16)
    place = Place(shards, images.write_png(tmp_path / "png", 50), workers=0, buffer=20, compute=CPU)
    wanted = Wanted(Augment(), 16, FIELDS)
    seen = {way: torch.cat(list(opened(way, place, wanted).epoch(0))) for way in WAYS}
    read = {way: sorted(map(bytes, (pixels * 255).round().byte().flatten(1).numpy())) for way, pixels in seen.items()}
    written = sorted(sample.image.transpose(2, 0, 1).tobytes() for sample in images.samples(50))
    assert all(read[way] == written for way in WAYS)
    assert torch.equal(seen["resident"], seen["streamed"])


def test_the_plain_loader_augments_as_it_was_asked(tmp_path: Path) -> None:
    folder = images.write_png(tmp_path / "png", 10)
    settings = Augment(crop_scale=0.8, flip=0.5, grayscale=1.0)
    pixels, labels = next(iter(plain.loader(folder, settings, 10, workers=0)))
    assert pixels.shape == (10, 3, 32, 32)
    assert sorted(labels.tolist()) == list(range(10))
    assert torch.allclose(pixels[:, 0], pixels[:, 2], atol=1e-6)
