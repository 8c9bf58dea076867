"""The black-box variant: a defender who may ask the classifier for labels and sees nothing else of it.

A network of the defender's own learns these labels, and the transform is trained through it; then it stands before the
classifier. The paper has such a variant in its Appendix E, of which we know no more than that, so this one is ours. Its
reviewers found the paper's substitute too much like the classifier; here its width may differ.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from refine.core.errors import UserError
from refine.defending.pseudo_labels import PseudoLabels
from refine.defending.retraining import Retraining, own_seed
from refine.defenses.refine.training.params import SubstituteParams
from refine.models import classifier as classifiers
from refine.models.architecture import named
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import Compute
from refine.models.layout import channels_last
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from refine.training.loop import Row, Run
from refine.training.training_set import TrainingSet


def trained(
    params: SubstituteParams,
    seed: int,
    classifier: tuple[Classifier, ClassifierCard],
    images: TrainingSet,
    compute: Compute,
    checkpoints: Checkpoints | None,
) -> tuple[Classifier, list[Row]]:
    """A network that learned the classifier's labels of the augmented images.

    Args:
        params: of the substitute.
        seed: of initial weights, batch order and augmentation.
        classifier: with its card; it is asked for labels alone.
        images: benign and unlabeled.
        compute: device and threads.
        checkpoints: of the run that begins with this.

    Returns:
        The substitute, frozen and on the CPU, and the history, a row per epoch.

    Raises:
        UserError: several processes train, the images cannot be cut into batches, the architecture has no width and one
            is set, or the loss or the weights are no longer finite.
    """
    if compute.world > 1:
        raise UserError("a substitute is trained in one process; unset REFINE_PROCESSES, or set substitute to null")
    asked, card = classifier
    recipe = params.recipe
    precision = compute.precision(recipe.precision)
    answers = PseudoLabels(asked.to(compute.device), recipe, False, compute, precision)

    def loss(logits: Tensor, pixels: Tensor, _: Batch) -> dict[str, Tensor]:
        labels = answers.of(pixels)
        return {
            "loss": functional.cross_entropy(logits, labels, label_smoothing=params.label_smoothing),
            "agreement": (logits.argmax(dim=1) == labels).float().mean(),
        }

    torch.manual_seed(own_seed(seed))
    made = classifiers.like(_as_wide(params, card))
    channels_last(made.to(compute.device))
    training = Retraining(made, images, recipe, loss, compute)
    classifiers.init_from_data(made, lambda: next(iter(training.batches.epoch(seed))).pixels)
    kept = checkpoints.part("substitute") if checkpoints else None
    history = Run(training, training.recipe, "train-refine-substitute", seed, compute, kept).train()
    return classifiers.freeze(made.cpu()), history


def _as_wide(params: SubstituteParams, card: ClassifierCard) -> ClassifierCard:
    """The classifier's card, its architecture as wide as the substitute's settings say."""
    if params.width is None:
        return card
    given = card.architecture.model_dump()
    if "width" not in given:
        raise UserError(f"train_refine.substitute.width: {card.architecture.name} networks have none; set it to null")
    return card.model_copy(update={"architecture": named(**{**given, "width": params.width})})
