"""Sample-distinguishment module (SD; Chen et al., NeurIPS 2022): poisoned images change more when they are transformed.

- Step A trains a network of the classifier's architecture on the poisoned training set. It takes so few epochs that the
  network learns little more than the trigger.
- Step B pushes the classes apart in its features: it lowers L_intra = 1/C^2 sum_{i != j} c_i c_j, where c_i is the
  normalized mean feature of the images of a batch that have label i, and C the number of labels among them.
- Step C measures feature consistency toward transformations (FCT) of each image x: the mean of (g(x) - g(t(x)))^2 over
  the features g, for a random rotation and translation t.
- Step D calls the share `alpha_c` with the least FCT clean, and the share `alpha_p` with the largest poisoned.

Nothing holds the features in step B: that all of them are zero is a minimum of L_intra, and users of the official code
report just that. Then FCT tells nothing; `intra_ce_weight` adds cross-entropy to step B, against it. And images with a
trigger that survives a rotation, such as a pattern over the whole image, change less than clean ones and not more. So
there is a gate, which a split does not pass

- where more than the share `alpha_c` of the images have an FCT of zero,
- where FCT does not tell two kinds of images apart within any class,
- where that class is not frequent among the images with the largest FCT (for the latter two, see `shape`).

Other differences to the official code: it draws new transformations after it has determined its thresholds, so that its
groups have other sizes than wanted; it passes each batch twice through batch normalization in step B; and its learning
rate falls along a cosine over 100 epochs, from 0.0100 to 0.0096 in the twelve that are run, and is constant here. Its
network has a max-pooling layer that our architectures do not have.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Generator, Tensor

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Number, Share, Weight
from refine.models import classifier as classifiers
from refine.models.classifier import Normalization
from refine.models.layout import channels_last
from refine.splits.sd.shape import LEAST, LEAST_ENRICHED, enrichment, separation
from refine.splits.sd.training import Measure, Sensitive
from refine.splits.sd.transformation import drawn
from refine.splitting.groups import POISONED, Sizes, ranked, sizes
from refine.splitting.params import SplitParams
from refine.splitting.protocol import Outcome, Task
from refine.training.lone_image import refuse_lone_image
from refine.training.loop import Row, Run
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule, paper_by_name
from refine.training.training_set import open_training_set

NAME = "sd"


class SensitiveRecipe(Recipe):
    """The defaults are published: 2 epochs of step A and 10 of step B, without augmentation."""

    place: ClassVar[str] = f"split_settings.{NAME}.recipe"

    epochs: Epochs = 12
    batch_size: BatchSize = 128
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=0.01)
    schedule: Schedule = Schedule(milestones=[])
    augment: Augment = Augment()


class Params(SplitParams):
    """Attributes:
    backdoor_epochs: how many epochs of the recipe are step A; the others are step B.
    intra_ce_weight: of the cross-entropy in step B; 0 is published.
    degrees: largest rotation to either side.
    translate: largest translation in each direction, as a share of the side.
    draws: transformations of each image, whose FCT is averaged; 1 is published.
    epoch: whose FCT counts: the `last` one as published, or that in which it is most `separated`, see `shape`.
    gate: what defenses do where a split does not pass it: `abstain`, or `ignore` it.
    recipe: of both steps together.
    """

    backdoor_epochs: Epochs = 2
    intra_ce_weight: Weight = 0.0
    degrees: Annotated[Number, Field(ge=0, le=180)] = 180.0
    translate: Share = 0.2
    draws: Annotated[int, Field(ge=1, le=1000)] = 4
    epoch: Literal["last", "separated"] = "last"
    gate: Literal["abstain", "ignore"] = "abstain"
    recipe: Annotated[SensitiveRecipe, BeforeValidator(paper_by_name)] = SensitiveRecipe()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.backdoor_epochs >= self.recipe.epochs:
            raise ValueError("backdoor_epochs leaves no epoch of step B; lower it or raise recipe.epochs")
        return self


def split(task: Task) -> Outcome:
    """See `splitting.protocol`.

    Raises:
        UserError: a group would be empty, or the training diverged.
    """
    params: Params = task.settings
    images, manifest = open_training_set(task.images, ("label", "key"), task.compute)
    of = sizes(manifest.samples, params)
    torch.manual_seed(params.seed)
    normalization = Normalization(mean=manifest.mean, std=manifest.std)
    classifier = classifiers.build(task.architecture, len(manifest.classes), normalization, manifest.side)
    classifiers.head_of(classifier.network, f"split {NAME}")
    channels_last(classifier.to(task.compute.device))
    refuse_lone_image(classifier, images, params.recipe, task.compute)
    draws = Generator().manual_seed(params.seed)
    by = [drawn(manifest.samples, manifest.side, params.degrees, params.translate, draws) for _ in range(params.draws)]
    measure = Measure(images, by, task.compute, task.compute.precision(params.recipe.precision))
    training = Sensitive(
        classifier, images, params.recipe, params.backdoor_epochs, params.intra_ce_weight, measure, task.compute
    )
    classifiers.init_from_data(classifier, lambda: next(iter(training.batches.epoch(params.seed))).pixels)
    run = Run(training, params.recipe, f"split-samples@{NAME}", params.seed, task.compute, task.checkpoints)
    history = run.train()
    labels, keys = measure.fields()
    order = keys.argsort()
    measured = [{name: values[order] for name, values in training.kept[name].items()} for name in sorted(training.kept)]
    rows = [_described(row, found, labels[order], of) for row, found in zip(history, measured, strict=True)]
    place = _chosen(rows, params)
    fct = measured[place]["fct"]
    refusal = _refusal(rows[place], params)
    names = ("epoch", "frac_zero_fct", "mean_feature_norm", "separation", "enrichment")
    return Outcome(
        fct=fct,
        groups=ranked(fct, of),
        refusal=refusal,
        abstain=refusal is not None and params.gate == "abstain",
        figures={name: rows[place][name] for name in names},
        history=rows,
        epochs=torch.stack([found["fct"] for found in measured]),
    )


def _described(row: Row, found: dict[str, Tensor], labels: Tensor, of: Sizes) -> Row:
    """The row of an epoch with what its FCT looks like."""
    fct, norm = found["fct"], found["norm"]
    separated, label = separation(fct, labels)
    return {
        **row,
        "frac_zero_fct": round(float((fct == 0).double().mean()), 6),
        "mean_feature_norm": float(f"{float(norm.double().mean()):.6g}"),
        "mean_fct": float(f"{float(fct.double().mean()):.6g}"),
        "separation": round(separated, 6),
        "enrichment": round(enrichment(labels, ranked(fct, of) == POISONED, label), 6),
    }


def _chosen(rows: list[Row], params: Params) -> int:
    """The place of the epoch whose FCT counts; of step B, as long as it did not collapse there at once."""
    if params.epoch == "last":
        return len(rows) - 1
    alive = [
        place for place in range(params.backdoor_epochs, len(rows)) if rows[place]["frac_zero_fct"] <= params.alpha_c
    ]
    return max(alive, key=lambda place: rows[place]["separation"], default=len(rows) - 1)


def _refusal(row: Row, params: Params) -> str | None:
    """Why the FCT of an epoch tells nothing; None if it does."""
    zero, separated = row["frac_zero_fct"], row["separation"]
    if zero > params.alpha_c:
        return f"the features collapsed, {zero:.1%} of the images have an FCT of zero, more than alpha_c"
    if separated < LEAST:
        return f"FCT tells no two kinds of images apart within any class (separation {separated:.2f}, least {LEAST})"
    if row["enrichment"] < LEAST_ENRICHED:
        return (
            "the class in which FCT tells two kinds of images apart is not where the largest FCT are, so that poisoned "
            f"images may have the smallest (enrichment {row['enrichment']:.2f}, least {LEAST_ENRICHED})"
        )
    return None
