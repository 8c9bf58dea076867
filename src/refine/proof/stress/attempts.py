"""Finding the learning rate by which a backdoor can be planted into a network of any kind.

A rate that is right for one network leaves another one without the backdoor, or changes what it says of clean images.
Images for defending show which of both it was. Those for measuring have no part in the choice.
"""

from __future__ import annotations

import logging
from pathlib import Path

from refine.core.errors import UserError
from refine.defending.protocol.defense import NoDefense
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier, ClassifierCard
from refine.proof.stress.measuring import Bench, measured, triggered
from refine.proof.stress.params import PlantingRecipe, StressParams
from refine.proof.stress.planting import Plan, plant
from refine.proof.stress.result import Measured
from refine.training.training_set import Resident

log = logging.getLogger(__name__)

_FACTOR = 3.0
"""Between the first two learning rates; between the next ones it is the square root of the one before."""


def took(found: Measured, params: StressParams) -> bool:
    """Whether a plant works and has changed nothing else."""
    return _works(found, params) and found.agreement.share >= 1 - params.most_disagreement


def planted(
    plan: Plan,
    params: StressParams,
    model: tuple[Classifier, ClassifierCard],
    images: Resident,
    trial: Bench,
    folder: Path,
) -> list[float]:
    """Plants a backdoor, if it has to be at several learning rates, and writes the folder of the copy.

    Args:
        plan: of the backdoor, with its tensors.
        params: of the stress test.
        model: see `planting.plant`.
        images: to fine-tune on.
        trial: the images that tell whether it took.
        folder: of the copy that took, or else of the last one.

    Returns:
        The learning rates that were tried.

    Raises:
        UserError: no attempt left finite weights, or the images cannot be cut into batches.
    """
    rates = [params.recipe.optimizer.lr]
    failed: UserError | None = None
    while True:
        try:
            plant(plan, _at(params.recipe, rates[-1]), model, images, trial.compute, folder)
            found = _look(plan, trial, folder)
        except UserError as error:
            failed, found = error, None
            log.info("%s", error)
        if found and took(found, params):
            return rates
        if len(rates) == params.attempts:
            break
        factor = _FACTOR ** (0.5 ** (len(rates) - 1))
        weak = found is not None and not _works(found, params)
        rates.append(rates[-1] * factor if weak else rates[-1] / factor)
    if failed and not folder.exists():
        raise failed
    return rates


def _works(found: Measured, params: StressParams) -> bool:
    return found.attack_success_rate.share >= params.least_asr


def _look(plan: Plan, trial: Bench, folder: Path) -> Measured:
    copy = NoDefense(classifiers.load(folder)[0]).eval().to(trial.compute.device)
    found = measured(copy, triggered(plan.attack, trial), trial)
    asr, agreement = (100 * rate.share for rate in (found.attack_success_rate, found.agreement))
    log.info("plant %s: ASR %.1f %%, agreement %.1f %% on images for defending", plan.name, asr, agreement)
    return found


def _at(recipe: PlantingRecipe, rate: float) -> PlantingRecipe:
    return recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"lr": rate})})
