"""Teaching the encoder of a transform what the classifier says of images, before the whole transform is trained.

A transform has to know an image's class to draw what the frozen classifier takes for another one. Through the decoder
and the classifier that knowledge is learned slowly and each step costs several times as much; a linear head on the
encoder gives it directly. The head is kept for comparison alone. No label is used but the frozen classifier's answers
on the defender's benign images. Where the encoder learns more of them than pseudo-labels, probabilities or features,
more comes in than with REFINE's own loss, and it may be something of a backdoor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from refine.defending.pseudo_labels import PseudoLabels
from refine.defenses.refine.defense import Refine
from refine.defenses.refine.model.transform import Transform
from refine.defenses.refine.training.batch_statistics import retake_statistics
from refine.defenses.refine.training.params import EncoderRecipe
from refine.defenses.refine.training.random_patterns import overlaid
from refine.defenses.refine.training.universal_perturbation import UniversalPerturbation
from refine.models.device import Compute, to_float32
from refine.training.augment import augment, uniform
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from refine.training.compilation import compiled
from refine.training.loop import Epochs, Row, Run, Step, Weights, batches_of
from refine.training.processes import Processes
from refine.training.training_set import TrainingSet

_MEASURED = 10_000
"""Images that the statistics of batch normalization are taken from, at the most, up to a batch."""
_PERTURBATION = "universal-perturbation-{:06d}"
"""Under which it lies, as it was after an epoch, among what a training keeps, where a name stands for one content."""


class EncoderWithHead(nn.Module):
    """A transform's encoder under a head.

    Shapes:
        what the transform takes, float [N, 3, H, W], to the encoder's features float [N, D] and logits float [N, K].
    """

    def __init__(self, transform: Transform, head: nn.Module) -> None:
        super().__init__()
        self._encoded = transform.encoded
        self.parts = nn.ModuleList(transform.encoder())
        self.head = head

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self._encoded(inputs)
        return encoded, self.head(encoded)


@dataclass
class EncoderTask:
    """How far encoder and head are from what the classifier says; see `training.loop.Task`.

    Attributes:
        defense: whose transform's encoder is trained.
        head: that it is trained under.
        batches: of what `answers` was given to.
        answers: of the defense's classifier.
    """

    defense: Refine
    head: nn.Module
    batches: Epochs
    answers: PseudoLabels
    recipe: EncoderRecipe
    compute: Compute
    precision: str
    kept: dict[str, Weights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module = EncoderWithHead(self.defense.transform, self.head).to(self.compute.device)
        self.generator = Generator(self.compute.device)
        bounds = self.recipe.universal_perturbation, self.recipe.universal_warp
        self._perturbation = UniversalPerturbation(*bounds, self.generator) if any(bounds) else None
        self._forward = compiled(Processes(self.compute).data_parallel(self.module), self.recipe)

    def begin_epoch(self, epoch: int) -> None:
        """See `training.loop.BeginsEpochs`."""
        if self._perturbation:
            self._perturbation.load(self.kept.get(_PERTURBATION.format(epoch - 1), {}))

    def update(self, optimizer: Optimizer) -> None:
        """See `training.loop.Updates`."""
        optimizer.step()
        if self._perturbation:
            self._perturbation.follow()

    def step(self, batch: Batch) -> Step:
        with torch.no_grad():
            pixels = augment(batch.pixels, self.recipe.augment, self.generator)
            if self.recipe.mixup:
                pixels = mixed(pixels, self.generator)
        inputs = self.defense.transform_inputs(self._disturbed(pixels))
        with self.compute.autocast(self.precision):
            encoded, logits = map(to_float32, self._forward(inputs))
        recipe, answers = self.recipe, self.answers
        more: dict[str, Tensor] = {}
        if recipe.learns == "labels":
            pseudo_labels = answers.of_batch(batch, pixels)
            loss = functional.cross_entropy(logits, pseudo_labels, label_smoothing=recipe.label_smoothing)
        elif recipe.learns == "probabilities":
            said = answers.logits_of_batch(batch, pixels)
            pseudo_labels = said.argmax(dim=1)
            loss = distillation(logits, said, recipe.temperature)
        else:
            features = answers.features_of_batch(batch, pixels)
            said = answers.logits_from(features)
            pseudo_labels = said.argmax(dim=1)
            more["cosine_distance"] = 1 - functional.cosine_similarity(encoded, features).mean()
            loss = distillation(logits, said, recipe.temperature) + recipe.features_weight * more["cosine_distance"]
        agreement = (logits.argmax(dim=1) == pseudo_labels).float().mean()
        return Step(loss * batch.loss_weight, {"loss": loss, "agreement": agreement, **more})

    def _disturbed(self, pixels: Tensor) -> Tensor:
        """What the encoder sees of augmented images, and the classifier does not."""
        if self.recipe.random_patterns:
            pixels = overlaid(pixels, self.recipe.random_patterns, self.generator)
        return self._perturbation.added(pixels) if self._perturbation else pixels

    def after_epoch(self, epoch: int, weights: Weights) -> None:
        """The last epoch counts (no selection); the perturbation goes on in the next one."""
        if self._perturbation:
            self.kept.clear()
            self.kept[_PERTURBATION.format(epoch)] = self._perturbation.state()

    def retake_statistics(self, seed: int) -> None:
        """Those of the encoder's batch normalization, from images as they are, see `EncoderRecipe`.

        Args:
            seed: of the choice of images.
        """
        batches = islice(self.batches.epoch(seed), -(-_MEASURED // self.recipe.batch_size))
        inputs = (self.defense.transform_inputs(batch.pixels) for batch in batches)
        with self.compute.autocast(self.precision):
            retake_statistics(self.module, inputs)


def mixed(pixels: Tensor, generator: Generator) -> Tensor:
    """Each image mixed with one drawn from the batch, at a share of its own (Zhang et al., ICLR 2018).

    With a teacher that is asked for each mixture, few images may say more (Beyer et al., CVPR 2022, "Knowledge
    distillation: A good teacher is patient and consistent").

    Args:
        pixels: float [N, 3, H, W].
        generator: on the device of the images.

    Returns:
        Images of the same shape and memory order.
    """
    others = torch.randperm(len(pixels), generator=generator, device=pixels.device)
    share = uniform(pixels, generator).view(-1, 1, 1, 1)
    return torch.lerp(pixels[others], pixels, share)


def distillation(logits: Tensor, said: Tensor, temperature: float) -> Tensor:
    """KL divergence of the softmax at a temperature T from what it should be, times T^2 (Hinton et al. 2015); scalar.

    Args:
        logits: float32 [N, K].
        said: float32 [N, K], logits of what it should be.
        temperature: T.
    """
    own, wanted = ((each / temperature).log_softmax(dim=1) for each in (logits, said))
    return functional.kl_div(own, wanted, reduction="batchmean", log_target=True) * temperature**2


def train_encoder(
    recipe: EncoderRecipe,
    seed: int,
    defense: Refine,
    head: nn.Module,
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
        head: that the encoder is trained under; it is no part of the transform.
        images: benign and unlabeled, to which `answers` was given.
        answers: of the defense's classifier.
        compute: device and threads.
        checkpoints: of the run that begins with this.

    Returns:
        The history, a row per epoch.
    """
    task = EncoderTask(
        defense=defense,
        head=head,
        batches=batches_of(images, recipe, compute),
        answers=answers,
        recipe=recipe,
        compute=compute,
        precision=compute.precision(recipe.precision),
    )
    kept = checkpoints.part("encoder") if checkpoints else None
    history = Run(task, recipe, "train-refine-encoder", seed, compute, kept).train()
    if recipe.precise_statistics:
        task.retake_statistics(seed)
    return history
