"""What a defense that changes weights is given, in a test: a tiny classifier and a few labeled images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refine.core.registry import DEFENSES, component
from refine.defending.retraining import Retraining
from refine.defending.train import Task
from refine.models import classifier as classifiers
from refine.models.architecture import named
from refine.models.classifier import Classifier
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from refine.training.loop import Row, Run
from support import synthetic, write_split
from tiny import CPU, WIDTH, classifier, classifier_card

ARCHITECTURES = ["resnet18", "airbench"]


def of_architecture(name: str) -> Classifier:
    """A random frozen classifier of three classes, for images of 16 pixels, whose batch statistics have moved."""
    if name == "resnet18":
        return classifier()
    torch.manual_seed(0)
    card = classifier_card()
    made = classifiers.build(named(name=name, width=WIDTH), 3, card.normalization, 16)
    images = synthetic(24)[0] / 255
    classifiers.init_from_data(made, lambda: images)
    with torch.no_grad():
        made.train()(images)
    return classifiers.freeze(made)


def task(
    folder: Path,
    defense: str,
    settings: dict[str, Any],
    architecture: str = "resnet18",
    images: int = 12,
    checkpoints: Checkpoints | None = None,
    **of_images: int,
) -> Task:
    """A task with labeled images, 12 of three classes and 16 pixels unless `of_images` says otherwise."""
    if not (folder / "images").exists():
        shown, labels = synthetic(images, **of_images)
        write_split(folder / "images", shown, labels, of_images.get("classes", 3))
    params = component(DEFENSES, defense, "a test").Params.model_validate(settings)
    card = classifier_card().model_copy(update={"architecture": named(name=architecture, width=WIDTH)})
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return Task(params, 1, of_architecture(architecture), card, folder / "images", CPU, out, checkpoints)


def batch(images: int = 6) -> Batch:
    """Of labeled images, as a task's training gets it."""
    shown, labels = synthetic(images)
    return Batch(shown / 255, (labels,))


def trained(retraining: Retraining, seed: int = 1) -> list[Row]:
    """The history of a whole run without checkpoints."""
    return Run(retraining, retraining.recipe, "a test", seed, CPU, None).train()


def after_each_step(retraining: Retraining, look: Callable[[], Any]) -> list[Any]:
    """What is seen after each step of a whole run."""
    seen: list[Any] = []
    update = retraining.update  # type: ignore[attr-defined]

    def watched(optimizer: torch.optim.Optimizer) -> None:
        update(optimizer)
        seen.append(look())

    retraining.update = watched  # type: ignore[attr-defined]
    trained(retraining)
    return seen


def state(of: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and statistics."""
    return {name: tensor.detach().clone() for name, tensor in of.state_dict().items()}
