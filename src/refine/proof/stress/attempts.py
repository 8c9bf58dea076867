"""Finding the learning rate by which a backdoor can be planted into a network of any kind.

A rate that is right for one network leaves another one without the backdoor, or changes what it says of clean images.
Images for defending show which of both it was. Those for measuring have no part in the choice.

Fine-tuning goes further than it has to. Weights on the line between the classifier's and the copy's often agree with
the classifier more, and the backdoor still works (as in Wortsman et al., CVPR 2022, "Robust fine-tuning of zero-shot
models").
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.defending.protocol.defense import NoDefense
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier, ClassifierCard
from refine.proof.stress.measuring import Bench, measured, triggered
from refine.proof.stress.params import PlantingRecipe, StressParams
from refine.proof.stress.planting import Plan, plant
from refine.proof.stress.result import Measured
from refine.training.training_set import Resident

log = logging.getLogger(__name__)

_WAYS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the way from the classifier to the fine-tuned copy that are tried."""
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
            found = _shortened(plan, params, model, trial, folder)
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


def _shortened(
    plan: Plan, params: StressParams, model: tuple[Classifier, ClassifierCard], trial: Bench, folder: Path
) -> Measured:
    """Moves a copy back to where it agrees with its classifier most while its backdoor works with a margin."""
    copy, card = classifiers.load(folder)
    copy.to(trial.compute.device)
    first = model[0].network.state_dict()
    last = {name: tensor.clone() for name, tensor in copy.network.state_dict().items()}
    with_trigger = triggered(plan.attack, trial)

    def at(way: float) -> Measured:
        copy.network.load_state_dict({name: _between(first[name], last[name], way) for name in last})
        return measured(NoDefense(copy).eval(), with_trigger, trial)

    least = params.least_asr + (1 - params.least_asr) / 4
    found = {way: at(way) for way in _WAYS}
    working = [way for way, each in found.items() if each.attack_success_rate.share >= least] or [_WAYS[0]]
    best = max(working, key=lambda way: found[way].agreement.share)
    at(best)
    with new_folder(folder) as part:
        classifiers.save(part, copy, card)
    asr, agreement = (100 * rate.share for rate in (found[best].attack_success_rate, found[best].agreement))
    log.info("plant %s, %g of the way: ASR %.1f %%, agreement %.1f %%", plan.name, best, asr, agreement)
    return found[best]


def _between(first: Tensor, last: Tensor, way: float) -> Tensor:
    """A point on the straight line between weights; counters are those of the last."""
    return torch.lerp(first, last, way) if last.is_floating_point() else last


def _at(recipe: PlantingRecipe, rate: float) -> PlantingRecipe:
    return recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"lr": rate})})
