"""BTI-DBF(P) (Xu et al., ICLR 2024): a U-Net purifies each image of what an inverted trigger adds.

Rounds alternate: a generator B is inverted that adds what may be a trigger (`defending.decoupling.inversion`), and the
purifier P learns to undo it,

    CE(F(P(x')), y) + w mean (P(x') - x)² + mean (g(P(x')) - g(x))²,   w = 100 where that change is above 0.05, else 1,

where x' are the images with noise, a tenth of which B has changed, and g is the last map. From the second round on, B
has to fool the purified classifier as well. The classifier never changes.

The published inference adds noise to each image, and so answers differ from call to call; here none is added. The
official code throws P away at the end.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator
from torch import Tensor

from refine.core.bounds import Epochs
from refine.defending.decoupling.params import DecouplingParams, DecouplingRecipe
from refine.defending.decoupling.unet import UNet
from refine.defending.protocol.card import protected_classifier, read_defense_card, settings_of, weights_of
from refine.defending.protocol.defense import Defense
from refine.models.card import restored
from refine.models.classifier import Classifier
from refine.models.device import to_float32
from refine.models.probe import probe, refuse_unusable
from refine.training.recipe import paper_by_name

NAME = "bti_dbf"


class PurifierRecipe(DecouplingRecipe):
    """Of the purifier, in each round."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"
    epochs: Epochs = 30


class Params(DecouplingParams):
    """Settings of the inversion (see `DecouplingParams`), and of the purifier.

    Attributes:
        recipe: how the purifier is trained.
    """

    recipe: Annotated[PurifierRecipe, BeforeValidator(paper_by_name)] = PurifierRecipe()


class Defended(Defense):
    """See `defending.protocol.defense.Defense`.

    Args:
        classifier: frozen.
        purifier: of its normalized images.
    """

    title = "BTI-DBF(P)"
    regime = "labeled"

    def __init__(self, classifier: Classifier, purifier: UNet) -> None:
        super().__init__()
        self.classifier = classifier
        self.purifier = purifier

    def forward(self, pixels: Tensor) -> Tensor:
        self.classifier.refuse_other(pixels)
        logits: Tensor = self.classifier.network(self.transformed(pixels))
        return logits

    def transformed(self, pixels: Tensor) -> Tensor:
        """Purified images, normalized, float32, same shape."""
        return to_float32(self.purifier(self.classifier.normalize(pixels)))

    def network_inputs(self, transformed: Tensor) -> Tensor:
        """See `Purifies`."""
        return transformed

    def pictures(self, pixels: Tensor) -> Tensor:
        """See `Purifies`."""
        return (self.transformed(pixels) * self.classifier.std + self.classifier.mean).clamp(0, 1)


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    card = read_defense_card(folder, NAME)
    params: Params = settings_of(folder, card, Params)
    classifier, of = protected_classifier(folder, card.classifier_sha256, classifier_folder)
    path, sha256 = weights_of(folder, card)
    purifier = restored(partial(UNet, params.first_channels, of.input_side), path, sha256)
    refuse_unusable(purifier, classifier.normalize(probe(of.input_side)), path)
    return Defended(classifier, purifier.requires_grad_(False)).eval()
