"""Defenses that give the classifier other weights, and leave its images and labels as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from torch import Tensor

from refine.core.params import Section
from refine.defending.protocol.card import protected_classifier, read_defense_card, settings_of, weights_of
from refine.defending.protocol.defense import Defense
from refine.models.apart import side_of
from refine.models.card import REMEDY, load_exact
from refine.models.classifier import Classifier
from refine.models.probe import probe, refuse_unusable
from refine.shards.reading.tensors import load_tensors, shapes


class Repaired(Defense):
    """A classifier of the same architecture with other weights; see `defending.protocol.defense.Defense`."""

    changes_classifier = True

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pixels)
        return logits


AnyRepaired = TypeVar("AnyRepaired", bound=Repaired)


def load(
    kind: type[AnyRepaired], name: str, params: type[Section], folder: Path, classifier_folder: Path
) -> AnyRepaired:
    """A repaired classifier in eval mode, frozen.

    Args:
        kind: of the defense.
        name: of the defense.
        params: its settings.
        folder: of the defense.
        classifier_folder: of the classifier that it was made from.

    Raises:
        UserError: a folder is damaged, or the defense belongs to another classifier.
    """
    card = read_defense_card(folder, name)
    settings_of(folder, card, params)
    classifier, _ = protected_classifier(folder, card.classifier_sha256, classifier_folder)
    (path, sha256), network = weights_of(folder, card), classifier.network
    load_exact(network, load_tensors(path, sha256, REMEDY, shapes(network.state_dict())), path)
    refuse_unusable(network, classifier.normalize(probe(side_of(network))), path)
    return kind(classifier).eval()
