"""Classifiers that include their normalization: pixels in, logits out.

Because the normalization is inside, other code cannot get it wrong. Only REFINE's input space `normalized_clamp01`
deliberately uses the network without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, cast, runtime_checkable

import torch
from pydantic import (
    AliasChoices,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import Tensor, nn

from refine.core.bounds import MOST_CLASSES, Mean, Side, Std
from refine.core.errors import UserError
from refine.core.registry import ARCHITECTURES, part
from refine.core.strict import Strict
from refine.models import folding
from refine.models.apart import side_of
from refine.models.architecture import Architecture
from refine.models.card import WEIGHTS, Card, read_card, restored, write_card
from refine.models.layout import channels_last
from refine.models.probe import probe, refuse_unusable
from refine.shards.format import foreign, preparation
from refine.shards.format.foreign import Pixels
from refine.shards.format.preparation import Preparation
from refine.shards.reading.tensors import save_tensors

_ROUNDING = 1e-3
_NORMALIZATION = AliasChoices("normalization", "normalisation")
"""The second is how cards of version 0.1.0 spell it."""


class Normalization(Strict):
    """Attributes: `mean` and `std` per channel (RGB), for pixels in [0, 1]."""

    mean: Mean
    std: Std


class ClassifierCard(Card):
    """Card of a classifier.

    Attributes:
        architecture: of the network.
        classes: names of the classes, in the order of the logits.
        normalization: applied inside the classifier.
        channel_order: of input images.
        input_side: height and width of input images, in pixels.
        input_range: of input pixels.
        preparation: how an image file becomes input; None: it is squashed to the input side, bilinearly. Only written
            where it is set, so that other cards stay as they were.
    """

    kind: Literal["classifier"] = "classifier"
    architecture: SerializeAsAny[Architecture]
    classes: Annotated[list[str], Field(min_length=2, max_length=MOST_CLASSES)]
    normalization: Annotated[Normalization, Field(validation_alias=_NORMALIZATION)]
    channel_order: Literal["RGB"] = "RGB"
    input_side: Side
    input_range: list[float] = Field(default=[0.0, 1.0], min_length=2, max_length=2)
    preparation: Preparation | None = None

    @model_validator(mode="after")
    def _refuse_other_side(self) -> Self:
        if self.preparation and self.preparation.crop != self.input_side:
            raise ValueError(f"preparation.crop is {self.preparation.crop}, not its input_side {self.input_side}")
        return self

    @model_serializer(mode="wrap")
    def _without_none(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = written(self)
        return {name: value for name, value in content.items() if name != "preparation" or value is not None}

    def read_image(self, file: Path) -> Pixels:
        """Reads an image file as this classifier takes it, uint8 [input_side, input_side, 3], RGB.

        Raises:
            UserError: the file cannot be read as an image.
        """
        if self.preparation is None:
            return foreign.read(file, self.input_side)
        return preparation.read(file, self.preparation)


@runtime_checkable
class DataDependentInit(Protocol):
    """A network with weights that are computed from images before training instead of being learned."""

    def init_from_data(self, images: Tensor) -> None:
        """Computes these weights from normalized images, float [N, 3, H, W]."""


class Classifier(nn.Module):
    """Maps pixels float [N, 3, H, W] in [0, 1], RGB, to logits float [N, K].

    Attributes:
        network: takes normalized images; its method `features` returns the penultimate representation, float [N, D].
            Where the network ends in a linear layer, that is its module `head`, see `head_of`.
        input_side: height and width of input images. If set, as by `load`, every call checks its input.
    """

    mean: Tensor
    std: Tensor
    input_side: int | None = None

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", normalization.mean), ("std", normalization.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalizes pixels in [0, 1] as in training, same shape."""
        return (pixels - self.mean) / self.std

    def refuse_other(self, pixels: Tensor) -> None:
        """Checks the input of a call, if `input_side` is set; the range of its values only when not compiling.

        Raises:
            ValueError: wrong shape, not a floating-point dtype, or values outside [0, 1] by more than rounding errors.
        """
        if self.input_side is None:
            return
        wanted = f"give pixels float [N, 3, {self.input_side}, {self.input_side}] in [0, 1], RGB"
        if pixels.shape[1:] != (3, self.input_side, self.input_side) or not pixels.is_floating_point():
            raise ValueError(f"{wanted}, not {pixels.dtype} {list(pixels.shape)}")
        if pixels.numel() and not torch.compiler.is_compiling():
            least, most = pixels.detach().aminmax()
            if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):  # also true for NaN
                raise ValueError(f"{wanted}, not from {float(least):g} to {float(most):g}")

    def forward(self, pixels: Tensor) -> Tensor:
        self.refuse_other(pixels)
        logits: Tensor = self.network(self.normalize(pixels))
        return logits


def build(architecture: Architecture, num_classes: int, normalization: Normalization, side: int) -> Classifier:
    """Builds a freshly initialized classifier, using torch's global random state.

    Args:
        architecture: of the network.
        num_classes: K.
        normalization: applied to pixels before the network.
        side: height and width of the images that it is for.

    Raises:
        UserError: there is no such network, or it does not take images of this side.
    """
    return Classifier(_builder(architecture, num_classes, side)(), normalization)


def like(card: ClassifierCard) -> Classifier:
    """A freshly initialized classifier of the kind that a card describes; see `build`."""
    return build(card.architecture, len(card.classes), card.normalization, card.input_side)


def _builder(architecture: Architecture, num_classes: int, side: int) -> Callable[[], nn.Module]:
    module = part(ARCHITECTURES, architecture.name, "network")
    return partial(cast(Callable[..., nn.Module], module.build), architecture, num_classes, side)  # type: ignore[union-attr]


def head_of(network: nn.Module, asked_by: str) -> nn.Linear:
    """The last layer of a network, which maps its features to logits.

    Args:
        network: of a classifier.
        asked_by: what needs it, for the error message.

    Raises:
        UserError: the network does not end in a linear layer.
    """
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear):
        raise UserError(f"{asked_by} needs an architecture whose last layer is linear and called head; choose another")
    return head


def init_from_data(classifier: Classifier, pixels: Callable[[], Tensor]) -> None:
    """Computes the weights of networks with a data-dependent initialization.

    Args:
        classifier: freshly built.
        pixels: gives training images float [N, 3, H, W] in [0, 1], if the network needs any.
    """
    if isinstance(classifier.network, DataDependentInit):
        classifier.network.init_from_data(classifier.normalize(pixels()))


def save(folder: Path, classifier: Classifier, card: ClassifierCard) -> None:
    """Writes the weights, and the card with their SHA-256."""
    sha256 = save_tensors(folder / WEIGHTS, classifier.network.state_dict())
    write_card(folder, card.model_copy(update={"weights_sha256": sha256}))


def load(folder: Path) -> tuple[Classifier, ClassifierCard]:
    """Loads a classifier, in eval mode and frozen, from a folder that may be untrusted.

    Raises:
        UserError: card or weights are missing, damaged, or do not match.
    """
    card = read_card(folder, ClassifierCard)
    if card.input_range != [0.0, 1.0]:
        raise UserError(f"{folder} takes pixels in {card.input_range}; only [0, 1] is supported, adapt its card")
    path = folder / WEIGHTS
    building = _builder(card.architecture, len(card.classes), card.input_side)
    network = restored(building, path, card.weights_sha256)
    classifier = freeze(Classifier(network, card.normalization))
    refuse_unusable(network, classifier.normalize(probe(side_of(network))), path)
    classifier.input_side = card.input_side
    return classifier, card


def folded(classifier: Classifier) -> Classifier:
    """A frozen copy with the same outputs, faster where batch normalization can be folded, see `models.folding`."""
    copy = Classifier(folding.folded(classifier.network), Normalization(mean=[0.0] * 3, std=[1.0] * 3))
    copy.mean, copy.std = classifier.mean, classifier.std
    return freeze(channels_last(copy))


def freeze(classifier: Classifier) -> Classifier:
    """Switches to eval mode and turns off gradients of parameters (those of the input are unaffected)."""
    return classifier.eval().requires_grad_(False)
