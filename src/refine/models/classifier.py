"""A classifier as the stages hand it on: pixels in, logits out, with the normalization inside.

Nobody downstream can normalize wrongly, because nobody downstream normalizes. REFINE's input space
`normalized_clamp01` is the one place that opens the wrapper on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Protocol, cast, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from refine.core.bounds import MOST_CLASSES, Mean, Side, Std, Width
from refine.core.errors import UserError
from refine.core.registry import ARCHITECTURES, component
from refine.models.card import WEIGHTS, Card, read_card, restored, write_card
from refine.models.probe import probe, refuse_unusable
from refine.shards.reading.tensors import save_tensors

_ROUNDING = 1e-3


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Architecture(_Part):
    """Attributes: `name`, a file of `architectures`, and the `width` that it is built with."""

    name: str
    width: Width


class Normalization(_Part):
    """Attributes: `mean` and `std` per channel (RGB), for pixels in [0, 1]."""

    mean: Mean
    std: Std


class ClassifierCard(Card):
    """Card of a classifier.

    Attributes:
        architecture: what to build.
        classes: names, in the order of the logits.
        normalization: done inside the classifier.
        channel_order: of the images that it takes.
        input_side: height and width of those images.
        input_range: of their pixels.
    """

    kind: Literal["classifier"] = "classifier"
    architecture: Architecture
    classes: Annotated[list[str], Field(min_length=2, max_length=MOST_CLASSES)]
    normalization: Normalization
    channel_order: Literal["RGB"] = "RGB"
    input_side: Side
    input_range: list[float] = Field(default=[0.0, 1.0], min_length=2, max_length=2)


@runtime_checkable
class DataDependentInit(Protocol):
    """A network that computes from images, before it is trained, what it does not learn."""

    def begin(self, images: Tensor) -> None:
        """Takes normalized images float [N, 3, H, W]."""


class Classifier(nn.Module):
    """Maps pixels float [N, 3, H, W] in [0, 1], RGB, to logits float [N, K].

    Attributes:
        network: the network behind the normalization; it has `features` for its penultimate representation, and `head`
            for the logits of that.
        input_side: where it is set, as `load` does, a call refuses what are no such pixels of this height and width.
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
        """Pixels in [0, 1] to what the network was trained on, same shape."""
        return (pixels - self.mean) / self.std

    def refuse_other(self, pixels: Tensor) -> None:
        """Looks at what a call is given, where `input_side` is set; at the range of its values unless compiling.

        Raises:
            ValueError: it is another shape, no floating point, or out of [0, 1] by more than rounding.
        """
        if self.input_side is None:
            return
        wanted = f"give pixels float [N, 3, {self.input_side}, {self.input_side}] in [0, 1], RGB"
        if pixels.shape[1:] != (3, self.input_side, self.input_side) or not pixels.is_floating_point():
            raise ValueError(f"{wanted}, not {pixels.dtype} {list(pixels.shape)}")
        if pixels.numel() and not torch.compiler.is_compiling():
            least, most = pixels.detach().aminmax()
            if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):  # also where they are NaN
                raise ValueError(f"{wanted}, not from {float(least):g} to {float(most):g}")

    def forward(self, pixels: Tensor) -> Tensor:
        self.refuse_other(pixels)
        logits: Tensor = self.network(self.normalize(pixels))
        return logits


def build(architecture: Architecture, num_classes: int, normalization: Normalization, read_from: str) -> Classifier:
    """A freshly initialized classifier, from torch's global random state.

    Args:
        read_from: where the architecture was named, for the message.

    Raises:
        UserError: there is no such architecture.
    """
    return Classifier(_builder(architecture, num_classes, read_from)(), normalization)


def _builder(architecture: Architecture, num_classes: int, read_from: str) -> Callable[[], nn.Module]:
    module = component(ARCHITECTURES, architecture.name, read_from)
    return partial(cast(Callable[..., nn.Module], module.build), num_classes=num_classes, width=architecture.width)


def save(folder: Path, classifier: Classifier, card: ClassifierCard) -> None:
    """Writes the weights and the card, whose sum is filled in here."""
    sha256 = save_tensors(folder / WEIGHTS, classifier.network.state_dict())
    write_card(folder, card.model_copy(update={"weights_sha256": sha256}))


def load(folder: Path) -> tuple[Classifier, ClassifierCard]:
    """A classifier from anybody's folder, in eval mode and frozen.

    Raises:
        UserError: card or weights are missing, damaged, or do not fit each other.
    """
    card = read_card(folder, ClassifierCard)
    if card.input_range != [0.0, 1.0]:
        raise UserError(f"{folder} takes pixels in {card.input_range}; only [0, 1] is supported, adapt its card")
    path = folder / WEIGHTS
    building = _builder(card.architecture, len(card.classes), f"{folder}/card.json: architecture")
    network = restored(building, path, card.weights_sha256)
    classifier = freeze(Classifier(network, card.normalization))
    refuse_unusable(network, classifier.normalize(probe()), path)
    classifier.input_side = card.input_side
    return classifier, card


def folded(classifier: Classifier) -> Classifier:
    """A frozen copy that answers the same and faster: a batch normalization behind a convolution is part of it."""
    copy = Classifier(fuse(classifier.network), Normalization(mean=[0.0] * 3, std=[1.0] * 3))
    copy.mean, copy.std = classifier.mean, classifier.std
    return freeze(copy.to(memory_format=torch.channels_last))


def freeze(classifier: Classifier) -> Classifier:
    """Eval mode, no gradient to any parameter (gradients to the input still flow)."""
    return classifier.eval().requires_grad_(False)
