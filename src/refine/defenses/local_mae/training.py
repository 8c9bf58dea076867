"""Training of the masked autoencoder: the mean squared error of what it draws in hidden places."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from refine.defending.retraining import own_seed
from refine.defending.train import Task
from refine.defenses.local_mae.autoencoder import MaskedAutoencoder
from refine.defenses.local_mae.defense import NAME, AutoencoderRecipe, Params, autoencoder
from refine.defenses.local_mae.search import HIDDEN
from refine.models.card import WEIGHTS
from refine.models.classifier import Classifier
from refine.models.device import Compute, to_float32
from refine.shards.reading.tensors import save_tensors
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.compilation import compiled
from refine.training.loop import Epochs, Run, Step, Weights, batches_of, write_history


@dataclass
class DrawingHidden:
    """See `training.loop.Task`.

    Attributes:
        classifier: normalizes the images.
    """

    module: MaskedAutoencoder
    classifier: Classifier
    batches: Epochs
    recipe: AutoencoderRecipe
    compute: Compute
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = Generator(self.compute.device)
        self._precision = self.compute.precision(self.recipe.precision)
        self._forward = compiled(self.module, self.recipe)

    def step(self, batch: Batch) -> Step:
        with torch.no_grad():
            images = self.classifier.normalize(augment(batch.pixels, self.recipe.augment, self.generator))
            masks = hidden(len(images), self.module.tokens, self.generator)
        with self.compute.autocast(self._precision):
            drawn = self._forward(images, masks)
        where = self.module.spread(masks).expand_as(images)
        loss = (to_float32(drawn) - images)[where].square().mean()
        return Step(loss * batch.loss_weight, {"loss": loss.detach()})

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Nothing to keep: the last epoch counts (no selection)."""


def hidden(count: int, tokens: int, generator: Generator) -> Tensor:
    """Random masks, bool [count, tokens], three quarters of each True."""
    order = torch.rand(count, tokens, generator=generator, device=generator.device).argsort(dim=1)
    return order < int(HIDDEN * tokens)


def train(task: Task) -> str:
    """See `defending.train.Task`.

    Raises:
        UserError: the images cannot be cut into tokens.
    """
    params: Params = task.settings
    compute = task.compute
    torch.manual_seed(own_seed(task.seed))
    made = autoencoder(params, task.card.input_side).train().to(compute.device)
    batches = batches_of(task.open_images(), params.recipe, compute)
    drawing = DrawingHidden(made, task.classifier.to(compute.device), batches, params.recipe, compute)
    history = Run(drawing, params.recipe, f"train-defense@{NAME}", task.seed, compute, task.checkpoints).train()
    write_history(task.folder / "history.csv", history)
    return save_tensors(task.folder / WEIGHTS, made.state_dict())
