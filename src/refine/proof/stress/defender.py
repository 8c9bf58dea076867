"""REFINE as the defense of a stress test."""

from __future__ import annotations

from math import ceil
from pathlib import Path

from refine.defenses.refine.training.params import TrainRefineParams
from refine.defenses.refine.training.train import train_refine
from refine.deployment import settings
from refine.models import classifier as classifiers
from refine.models.classifier import ClassifierCard
from refine.models.device import Compute
from refine.proof.stress.stress import Defender
from refine.training.training_set import TrainingSet


def refine_defender(params: TrainRefineParams, compute: Compute, chosen_for: ClassifierCard | None = None) -> Defender:
    """REFINE, trained in the same way.

    Args:
        params: of the training.
        compute: device and threads.
        chosen_for: card of the classifier, where the package chose the parameters (`deployment.settings`): it then fits
            batches and learning rates to as many images as there are in the test.
    """

    def train(images: TrainingSet, classifier: Path, folder: Path) -> None:
        again = settings.refitted(params, chosen_for, sum(images.sizes)) if chosen_for else params
        train_refine(again, images, classifier, compute, folder)

    return Defender("refine", params.model_dump(), 2 if chosen_for else _least(params), train)


def built_in_defender(classifier: Path, images: TrainingSet, compute: Compute) -> Defender:
    """REFINE with the settings that `refine defend` chooses where it is given none.

    Args:
        classifier: its folder.
        images: of the user, all of them.
        compute: device and threads.

    Raises:
        UserError: the folder is damaged.
    """
    model, card = classifiers.load(classifier)
    mirrors = settings.look(model.to(compute.device), images, compute).mirrors
    return refine_defender(settings.built_in(card, sum(images.sizes), mirrors), compute, card)


def _least(params: TrainRefineParams) -> int:
    """Images that the training needs for a batch of each kind."""
    recipes = [params.recipe, params.encoder, params.substitute and params.substitute.recipe]
    batches = [recipe.batch_size for recipe in recipes if recipe and recipe.drop_last]
    return ceil(max([1, *batches]) / params.unlabeled_fraction)
