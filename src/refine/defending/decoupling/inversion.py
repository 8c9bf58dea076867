"""Inverting a backdoor by decoupling features (BTI-DBF, Xu et al., ICLR 2024).

A mask m over the last map g tells the features that clean images need from the others:

    minimize over m:  CE(h(m g(x)), y) - CE(h((1 - m) g(x)), y),   m = tanh(theta) / 2 + 1/2.

Then a generator B learns to change images so that the others move and these stay:

    minimize over B:  0.01 e(m) - e(1 - m),   e(w) = mean (w (g(B(x)) - g(x)))²,

or, where the image changes by more than a bound or e(m) is above one, mean (B(x) - x)² alone. The class that changed
images most often get is the target of the backdoor, if there is one.

Ours: the classifier is in eval mode throughout, where the official mask step moves its running statistics. In the
pretraining, which teaches B to leave images as they are, KL(F(x) || F(B(x))) replaces a cross-entropy that takes
probabilities for logits, with its arguments exchanged. Each round trains with a new optimizer. A target is only held
for one if it leads by a margin (others reported wrong targets).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.core.files import write_json
from refine.defending.decoupling.inside import Inside
from refine.defending.decoupling.params import DecouplingParams
from refine.defending.decoupling.terms import Mask, generator_terms, mask_terms, noisy, pretraining_terms
from refine.defending.decoupling.unet import UNet
from refine.defending.finetuning import labels_of
from refine.defending.retraining import Retraining, own_seed
from refine.defending.train import Task
from refine.models.classifier import Classifier
from refine.models.device import to_float32
from refine.shards.reading.pixels import to_pixels
from refine.training.batches import Batch
from refine.training.loop import Row, Run, Step
from refine.training.recipe import Recipe
from refine.training.training_set import TrainingSet, in_order

Terms = Callable[[Tensor, Tensor, Generator], dict[str, Tensor]]
"""From normalized images float [B, 3, H, W], labels int64 [B] and what may be drawn from to figures, of which `loss` is
minimized."""

TARGET = "target.json"
"""The class that the generator's images most often get after the first round; beside the weights."""
_AT_ONCE = 256


class Phase(Retraining):
    """Trains a module beside a classifier that stays in eval mode.

    Args:
        module: what is trained.
        terms: its loss.
        of: arguments of `Retraining`.
    """

    def __init__(self, module: nn.Module, terms: Terms, *of: Any) -> None:
        super().__init__(*of)
        self.module, self.terms = module, terms

    def step(self, batch: Batch) -> Step:
        """See `training.loop.Task`."""
        images = self.classifier.normalize(self.augmented(batch))
        with self.compute.autocast(self._precision):
            terms = self.terms(images, labels_of(batch), self.generator)
        return Step(terms["loss"] * batch.loss_weight, {name: value.detach() for name, value in terms.items()})


@dataclass(frozen=True)
class Vote:
    """The class that changed images most often get.

    Attributes:
        label: of the class.
        share: of the images.
        margin: of this share over that of the second class.
    """

    label: int
    share: float
    margin: float


class Inversion:
    """The generator of a trigger, and what it takes to train it.

    Args:
        task: of the defense, whose settings are `DecouplingParams`.
        name: of the defense, for messages and checkpoints.
        images: labeled.
        classifier: on the device, frozen; a copy of the task's, whose weights a caller may change.

    Attributes:
        generator: maps normalized images to images with what may be a trigger.
        inside: of the classifier.

    Raises:
        UserError: the network has no map to look at.
    """

    def __init__(self, task: Task, name: str, images: TrainingSet, classifier: Classifier) -> None:
        self.task, self.name, self.images, self.classifier = task, name, images, classifier
        self.params: DecouplingParams = task.settings
        self.inside = Inside(classifier.network, task.card.input_side, name)
        torch.manual_seed(own_seed(task.seed))
        self.generator = UNet(self.params.first_channels, task.card.input_side).to(task.compute.device)

    def trained(
        self,
        module: nn.Module,
        terms: Terms,
        recipe: Recipe,
        phase: str,
        number: int = 0,
        statistics: bool = False,
        learned: Sequence[nn.Parameter] | None = None,
    ) -> list[Row]:
        """Trains a module, which is then frozen, to the end of a recipe; a finished phase is not trained again.

        Args:
            module: what is trained.
            terms: its loss.
            recipe: how.
            phase: a word for it, for messages and checkpoints.
            number: of the round.
            statistics: whether batch normalization in it uses those of the batch.
            learned: which of its weights; None means all.

        Returns:
            The history.
        """
        task = self.task
        of = self.classifier, self.images, recipe, None, task.compute, statistics
        phase = f"{phase}-{number}"
        for weight in module.parameters() if learned is None else learned:
            weight.requires_grad_(True)
        kept = task.checkpoints.part(phase) if task.checkpoints else None
        training = Phase(module, terms, *of)
        self.classifier.eval()
        name, seed = f"train-defense@{self.name}-{phase}", task.seed + number
        rows = Run(training, recipe, name, seed, task.compute, kept).train()
        module.requires_grad_(False)
        return rows

    def alternate(self, purify: Callable[[Tensor], Tensor] | None, repair: Callable[[int], list[Row]]) -> list[Row]:
        """Inverts and repairs in turn, with a pretrained generator.

        Writes the class that seems to be the target into `TARGET`.

        Args:
            purify: what the defense makes of changed images, from the second round on; None leaves them as they are.
            repair: trains the defense in the round of this number, and gives its history.

        Returns:
            The histories, with the number of the round.
        """
        target, rows = None, []
        for number in range(self.params.rounds):
            self._invert(number, purify if number else None, target)
            if not number:
                vote = self.vote()
                used = vote.margin >= self.params.least_margin
                target = vote.label if used else None
                write_json(self.task.folder / TARGET, {**asdict(vote), "used": used})
            rows += [{"round": number, **row} for row in repair(number)]
        return rows

    def pretrain(self) -> None:
        """Teaches the generator to leave images as they are."""

        def terms(images: Tensor, _: Tensor, __: Generator) -> dict[str, Tensor]:
            return pretraining_terms(self.inside, self.generator, images)

        self.trained(self.generator, terms, self.params.pretraining, "pretraining")

    def _mask(self, number: int) -> Tensor:
        """The mask of a round, float32 [1, C, h, w] in (0, 1)."""
        columns = next(in_order(self.images, 1, self.task.compute.device, "a look"))
        with torch.no_grad():
            like = self.inside.answer(self.classifier.normalize(to_pixels(columns[0]))).map
        made = Mask(like, self.task.seed + number)

        def terms(images: Tensor, labels: Tensor, _: Generator) -> dict[str, Tensor]:
            return mask_terms(self.inside, made(), images, labels)

        self.trained(made, terms, self.params.mask, "mask", number)
        found: Tensor = made()
        return found

    def _invert(self, number: int, purify: Callable[[Tensor], Tensor] | None, target: int | None) -> None:
        """Trains the generator in a round, in which changed and purified images are to get the target all the same."""
        mask = self._mask(number)

        def terms(images: Tensor, _: Tensor, __: Generator) -> dict[str, Tensor]:
            with torch.no_grad():
                before = self.inside.answer(images).map
            made = to_float32(self.generator(images))
            after = self.inside.answer(purify(made) if purify else made)
            found = generator_terms(made, images, after.map - before, mask, self.params)
            if target is not None:
                wanted = torch.full((len(images),), target, device=images.device)
                fooled = functional.cross_entropy(after.logits, wanted)
                found = {**found, "loss": found["loss"] + fooled, "fooled": fooled}
            return found

        self.trained(self.generator, terms, self.params.generator, "generator", number)

    @torch.no_grad()
    def vote(self) -> Vote:
        """Which class the images get when the generator has changed them."""
        counts = torch.zeros(len(self.task.card.classes), dtype=torch.int64)
        generator = Generator(self.task.compute.device).manual_seed(self.task.seed)
        for columns in in_order(self.images, _AT_ONCE, self.task.compute.device, "vote"):
            made = self.generator(self.classifier.normalize(to_pixels(columns[0])))
            answers = self.inside.answer(noisy(made, self.params.noise, generator)).logits.argmax(dim=1)
            counts += answers.bincount(minlength=len(counts)).cpu()
        best = counts.double().div(counts.sum()).sort(descending=True, stable=True)
        return Vote(int(best.indices[0]), float(best.values[0]), float(best.values[0] - best.values[1]))

    def mixed(self, images: Tensor) -> Tensor:
        """Normalized images, the first of which the generator has changed."""
        count = int(self.params.generated * len(images)) + 1
        with torch.no_grad():
            return torch.cat([to_float32(self.generator(images[:count])), images[count:]])
