"""The REFINE defense as one module: transform, frozen classifier, label map (Chen et al., ICLR 2025).

    q = M(softmax(F(clip(T(x)))))

`load(folder, classifier)` gives it from its folder; nothing else is needed to use a defended model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.defending.protocol.card import protected_classifier
from refine.defending.protocol.defense import Defense
from refine.defenses.refine.card import InputSpace, RefineCard
from refine.defenses.refine.model.label_map import inverted, remap_by
from refine.defenses.refine.model.transform import Transform, built
from refine.defenses.refine.model.transform_params import TransformParams
from refine.models import classifier as classifiers
from refine.models.apart import side_of
from refine.models.card import REMEDY, WEIGHTS, read_card, restored, write_card
from refine.models.classifier import Classifier, ClassifierCard
from refine.models.device import to_float32
from refine.models.probe import probe, refuse_unusable
from refine.shards.reading.tensors import save_tensors

ENCODER_HEAD = "encoder_head.safetensors"


class Refine(Defense):
    """Maps pixels float [N, 3, H, W] in [0, 1], RGB, to remapped logits float [N, K].

    A call of what `load` gave refuses other pixels, as its classifier does. See `defending.protocol.defense.Defense`.

    Attributes:
        transform: the only part that is ever trained.
        permutation: int64 [K].
        inverse: of the permutation, int64 [K]; not stored.
    """

    title = "REFINE"
    regime = "unlabeled"
    permutation: Tensor
    inverse: Tensor

    def __init__(
        self, classifier: Classifier, transform: Transform, permutation: Tensor, input_space: InputSpace
    ) -> None:
        super().__init__()
        self.classifier = classifiers.freeze(classifier)
        self.transform = transform
        self.input_space = input_space
        self.register_buffer("permutation", permutation)
        self.register_buffer("inverse", inverted(permutation), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the transform; the classifier stays in eval mode whatever happens."""
        super().train(mode)
        self.classifier.eval()
        return self

    def transformed(self, pixels: Tensor) -> Tensor:
        """The transformed and clamped images z, in [0, 1] of the input space, float32, same shape.

        `pixel`: pixels go in and z are pixels. `normalized_clamp01`, the released code's behavior: normalized
        images go in and z is taken for normalized as it is, so the classifier sees a fifth of its usual range.
        """
        out: Tensor = self.transform(self.transform_inputs(pixels))
        return to_float32(out).clamp(0, 1)

    def transform_inputs(self, pixels: Tensor) -> Tensor:
        """Pixels as the transform takes them, same shape."""
        return pixels if self.input_space == "pixel" else self.classifier.normalize(pixels)

    def network_inputs(self, transformed: Tensor) -> Tensor:
        """Transformed images as the classifier's network takes them, normalized, same shape."""
        return self.classifier.normalize(transformed) if self.input_space == "pixel" else transformed

    def logits(self, transformed: Tensor) -> Tensor:
        """Raw logits of the frozen classifier on transformed images, before the label map, float [N, K]."""
        logits: Tensor = self.classifier.network(self.network_inputs(transformed))
        return logits

    def pictures(self, pixels: Tensor) -> Tensor:
        """The transformed images as pixels in [0, 1] that a person can look at, same shape."""
        images = self.transformed(pixels)
        if self.input_space == "pixel":
            return images
        return (images * self.classifier.std + self.classifier.mean).clamp(0, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return remap_by(to_float32(self._raw(pixels)), self.inverse)

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Of each class, float32 [N, K]."""
        return self.mapped(to_float32(self._raw(pixels)).softmax(dim=1))

    def mapped(self, probabilities: Tensor) -> Tensor:
        """See `MapsLabels`."""
        return remap_by(probabilities, self.inverse.to(probabilities.device))

    def unmapped(self, labels: Tensor) -> Tensor:
        """See `MapsLabels`."""
        return self.inverse.to(labels.device)[labels]

    def retuned_modules(self) -> dict[str, list[nn.Module]]:
        """See `Retunes`: the transform alone, through the frozen classifier, or both."""
        return {"transform": [self.transform], "all": [self.transform, self.classifier]}

    def _raw(self, pixels: Tensor) -> Tensor:
        self.classifier.refuse_other(pixels)
        return self.logits(self.transformed(pixels))


Defended = Refine


class EncoderAlone(Defense):
    """The encoder of a defense's transform under the head that it learned with: a student of the classifier.

    What REFINE draws and maps comes from what this student sees, so it tells what drawing and mapping add.
    """

    title = "REFINE's encoder"
    regime = "unlabeled"

    def __init__(self, defense: Refine, head: nn.Module) -> None:
        super().__init__()
        self.defense, self.head = defense, head
        self.classifier = defense.classifier

    def forward(self, pixels: Tensor) -> Tensor:
        defense = self.defense
        defense.classifier.refuse_other(pixels)
        logits: Tensor = self.head(defense.transform.encoded(defense.transform_inputs(pixels)))
        return logits


def state(permutation: Tensor, transform: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is stored of a defense: the state of its transform, and the permutation."""
    return {**{f"transform.{name}": tensor for name, tensor in transform.items()}, "permutation": permutation}


def save(folder: Path, defense: Refine, card: RefineCard, head: nn.Module | None = None) -> None:
    """Writes weights and card; the sums of the weights are filled in here.

    Args:
        folder: of the defense.
        defense: whose transform and permutation are written.
        card: with anything in the place of the sums.
        head: under which the encoder learned, if it belongs to it.
    """
    sums = {
        "weights_sha256": save_tensors(folder / WEIGHTS, state(defense.permutation, defense.transform.state_dict()))
    }
    if head is not None:
        sums["encoder_head_sha256"] = save_tensors(folder / ENCODER_HEAD, head.state_dict())
    write_card(folder, card.model_copy(update=sums))


def load(folder: Path, classifier_folder: Path, epoch: int | None = None) -> Refine:
    """A defended classifier in eval mode.

    Args:
        folder: of the defense.
        classifier_folder: of the classifier that it was trained for.
        epoch: takes the snapshot after this epoch instead of the final state.

    Raises:
        UserError: a folder is damaged, the defense belongs to another classifier, or there is no such snapshot.
    """
    card = read_card(folder, RefineCard)
    classifier, classifier_card = protected_classifier(folder, card.classifier_sha256, classifier_folder)
    if card.num_classes != len(classifier_card.classes):
        raise UserError(
            f"{folder}/card.json tells of {card.num_classes} classes, {classifier_folder} knows "
            f"{len(classifier_card.classes)}; {REMEDY}"
        )
    path, sha256 = folder / WEIGHTS, card.weights_sha256
    if epoch is not None:
        found = [snapshot for snapshot in card.snapshots if snapshot.epoch == epoch]
        if not found:
            raise UserError(f"{folder} has no snapshot of epoch {epoch}; see the list in its card.json")
        path, sha256 = folder / found[0].file, found[0].sha256
    stored = restored(lambda: _Stored(card.transform, classifier_card), path, sha256)
    if sorted(stored.permutation.tolist()) != list(range(card.num_classes)):
        raise UserError(f"{path} holds no permutation of the classifier's classes; {REMEDY}")
    defense = Refine(classifier, stored.transform, stored.permutation, card.input_space).eval()
    refuse_unusable(stored, defense.transform_inputs(probe(side_of(defense.transform))), path)
    return defense


def snapshots(folder: Path) -> list[int]:
    """Epochs whose states were kept, the last one that of the weights."""
    return [snapshot.epoch for snapshot in read_card(folder, RefineCard).snapshots]


def parts(folder: Path, classifier_folder: Path) -> dict[str, Defense]:
    """What inside a defense answers by itself, by its name: the encoder, where its head was kept.

    Raises:
        UserError: as in `load`.
    """
    sha256 = read_card(folder, RefineCard).encoder_head_sha256
    if sha256 is None:
        return {}
    defense = load(folder, classifier_folder)
    classes = len(defense.permutation)
    path = folder / ENCODER_HEAD
    head = restored(lambda: defense.transform.new_head(classes), path, sha256)
    with torch.no_grad():
        images = defense.transform_inputs(probe(side_of(defense.transform)))
        refuse_unusable(head, defense.transform.encoded(images), path)
    return {"encoder": EncoderAlone(defense, head).eval()}


class _Stored(nn.Module):
    """What is stored of a defense, as a module; see `state`."""

    permutation: Tensor

    def __init__(self, params: TransformParams, classifier: ClassifierCard) -> None:
        super().__init__()
        self.transform = built(params, classifier)
        self.register_buffer("permutation", torch.zeros(len(classifier.classes), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.transform(images)
        return out
