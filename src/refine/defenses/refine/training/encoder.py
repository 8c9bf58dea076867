"""Teaching the U-Net's encoder to tell the pseudo-labels, before the whole transform is trained.

A transform has to know an image's class to draw what the frozen classifier takes for another one. Through the decoder
and the classifier that knowledge is learned slowly and each step costs several times as much; a linear head on the
encoder gives it directly. The head is thrown away. No label is used but the frozen classifier's answers on the
defender's benign images, so nothing comes in that REFINE's own loss does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.defending.pseudo_labels import PseudoLabels
from refine.defenses.refine.defense import Refine
from refine.defenses.refine.model.unet import UNet, encoded
from refine.defenses.refine.training.params import EncoderRecipe
from refine.models.device import Compute, to_float32
from refine.training.augment import augment
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from refine.training.compilation import compiled
from refine.training.loop import Epochs, Row, Run, Step, Weights, batches_of
from refine.training.processes import Processes
from refine.training.training_set import TrainingSet


class EncoderWithHead(nn.Module):
    """A U-Net's encoder under a linear head: what the U-Net takes, float [N, 3, H, W], to logits float [N, K]."""

    def __init__(self, transform: UNet, num_classes: int) -> None:
        super().__init__()
        self.inlet, self.down = transform.inlet, transform.down
        self.head = nn.Linear(transform.inner_channels, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(encoded(self.inlet, self.down, inputs)[-1].amax(dim=(2, 3)))
        return logits


@dataclass
class EncoderTask:
    """Cross-entropy of the head's logits and the pseudo-labels; see `training.loop.Task`.

    Attributes:
        defense: whose transform's encoder is trained.
        batches: of what `answers` was given to.
        answers: of the defense's classifier.
    """

    defense: Refine
    batches: Epochs
    answers: PseudoLabels
    recipe: EncoderRecipe
    compute: Compute
    precision: str
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module = EncoderWithHead(self.defense.transform, len(self.defense.permutation)).to(self.compute.device)
        self.generator = Generator(self.compute.device)
        self._forward = compiled(Processes(self.compute).data_parallel(self.module), self.recipe)

    def step(self, batch: Batch) -> Step:
        with torch.no_grad():
            pixels = augment(batch.pixels, self.recipe.augment, self.generator)
            inputs = self.defense.transform_inputs(pixels)
        pseudo_labels = self.answers.of_batch(batch, pixels)
        with self.compute.autocast(self.precision):
            logits = self._forward(inputs)
        loss = functional.cross_entropy(to_float32(logits), pseudo_labels, label_smoothing=self.recipe.label_smoothing)
        agreement = (logits.argmax(dim=1) == pseudo_labels).float().mean()
        return Step(loss * batch.loss_weight, {"loss": loss, "agreement": agreement})

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """Nothing to keep: the last epoch counts (no selection)."""


def train_encoder(
    recipe: EncoderRecipe,
    seed: int,
    defense: Refine,
    images: TrainingSet,
    answers: PseudoLabels,
    compute: Compute,
    checkpoints: Checkpoints | None,
) -> list[Row]:
    """Trains the encoder of a defense's transform in place.

    Args:
        recipe: how.
        seed: of batch order and augmentation.
        defense: on its device.
        images: benign and unlabeled, to which `answers` was given.
        answers: of the defense's classifier.
        compute: device and threads.
        checkpoints: of the run that begins with this.

    Returns:
        The history, a row per epoch.
    """
    task = EncoderTask(
        defense=defense,
        batches=batches_of(images, recipe, compute),
        answers=answers,
        recipe=recipe,
        compute=compute,
        precision=compute.precision(recipe.precision),
    )
    kept = checkpoints.part("encoder") if checkpoints else None
    return Run(task, recipe, "train-refine-encoder", seed, compute, kept).train()
