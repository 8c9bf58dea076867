"""Making a model folder of a file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from refine.core.errors import UserError
from refine.core.files import new_folder, sha256_of
from refine.core.params import sentence
from refine.importing import onnx_file, weights_file
from refine.importing.onnx_weights import OnnxWeights
from refine.importing.published import published
from refine.importing.weights import StateDict, Weights
from refine.models import classifier as classifiers
from refine.models.apart import side_of
from refine.models.architecture import Architecture, Published, named
from refine.models.classifier import Classifier, ClassifierCard, Normalization
from refine.models.probe import probe, refuse_unusable

_SMALL_SIDE = 32
_RGB = 3


@dataclass(frozen=True)
class Asked:
    """What the user says of a model; None: what the library of its architecture says.

    Attributes:
        architecture: of the network.
        small_stem: whether a network of torchvision has its small stem; None: whichever fits.
        classes: names; None: numbers.
        mean: per channel, in the order red, green, blue, for pixels in [0, 1].
        std: per channel.
        side: of its images, in pixels.
        resize: of the shorter side of an image before its middle is taken.
        interpolation: of that.
        bgr: whether it was trained on images with channels in the order blue, green, red.
    """

    architecture: Architecture
    small_stem: bool | None = None
    classes: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    side: int | None = None
    resize: int | None = None
    interpolation: str | None = None
    bgr: bool = False


@dataclass(frozen=True)
class Imported:
    """A classifier in eval mode and frozen, its card, and remarks on what was assumed."""

    classifier: Classifier
    card: ClassifierCard
    remarks: list[str]


def imported(path: Path, asked: Asked) -> Imported:
    """The classifier of a file of weights.

    Args:
        path: of a PyTorch state dict, of safetensors or of ONNX, from anybody.
        asked: what the user says of it.

    Raises:
        UserError: the file cannot be used or does not fit the architecture, or more has to be known about it.
    """
    is_onnx = path.suffix.lower() == ".onnx"
    weights: Weights = OnnxWeights(onnx_file.read(path)) if is_onnx else StateDict(weights_file.read(path), path)
    architecture, side, remarks = _fitting(weights, asked)
    text = _text(architecture)
    build = partial(_network, architecture, side)
    classes = weights.classes(build, text)
    names = _class_names(classes, asked, path)
    known = published(architecture)
    normalization = _normalization(known, asked, text)
    network = build(classes)
    problem = weights.misfit(network, text)
    if problem:
        raise UserError(problem)
    weights.fill(network, text, side)
    if asked.bgr:
        _turn_channels(network, text)
    card = _card(architecture, names, normalization, side, known, asked, path)
    classifier = classifiers.freeze(Classifier(network, normalization))
    refuse_unusable(network, classifier.normalize(probe(side_of(network))), path)
    classifier.input_side = side
    return Imported(classifier, card, remarks)


def write(found: Imported, folder: Path) -> None:
    """Writes the model folder, whole or not at all."""
    with new_folder(folder) as part:
        classifiers.save(part, found.classifier, found.card)


def _network(architecture: Architecture, side: int, classes: int) -> nn.Module:
    plain = Normalization(mean=[0.0] * _RGB, std=[1.0] * _RGB)
    return classifiers.build(architecture, classes, plain, side).network


def _fitting(weights: Weights, asked: Asked) -> tuple[Architecture, int, list[str]]:
    """The architecture, with or without its small stem, the side of its images, and remarks."""
    settings = asked.architecture.model_dump()
    if "small_stem" not in settings:
        return asked.architecture, _side(asked.architecture, asked, False), []
    if asked.small_stem is not None:
        settings["small_stem"] = asked.small_stem
        return (chosen := named(**settings)), _side(chosen, asked, asked.small_stem), []
    tries = [(named(**{**settings, "small_stem": small}), small) for small in (settings["small_stem"], True)]
    for architecture, small in tries:
        side = _side(architecture, asked, small)
        if _fits(weights, architecture, side):
            assumed = small and not settings["small_stem"]
            remark = "the first layers are those for small images: stride 1, no max pooling (else give --no-small-stem)"
            return architecture, side, [remark] if assumed else []
    architecture, small = tries[0]
    return architecture, _side(architecture, asked, small), []


def _fits(weights: Weights, architecture: Architecture, side: int) -> bool:
    build = partial(_network, architecture, side)
    try:
        classes = weights.classes(build, "")
        with torch.device("meta"):
            network = build(classes)
        return weights.misfit(network, "") is None
    except UserError:
        return False


def _side(architecture: Architecture, asked: Asked, small: bool) -> int:
    if asked.side is not None:
        return asked.side
    if small:
        return _SMALL_SIDE
    known = published(architecture)
    if known is None:
        raise UserError(f"{_text(architecture)} takes images of many sizes; give their side by --input-side")
    return known.side


def _class_names(count: int, asked: Asked, path: Path) -> list[str]:
    if asked.classes is None:
        return [str(label) for label in range(count)]
    if len(asked.classes) != count:
        raise UserError(f"{path} knows {count} classes, but {len(asked.classes)} names are given; give one for each")
    return list(asked.classes)


def _normalization(known: Published | None, asked: Asked, text: str) -> Normalization:
    values: dict[str, Any] = {}
    for name in ("mean", "std"):
        said = getattr(asked, name) or (getattr(known, name) if known else None)
        if said is None:
            raise UserError(
                f"nobody published how images are normalized for {text}; give it as in its training, such as "
                "--mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616"
            )
        values[name] = [float(value) for value in said]
    try:
        return Normalization(**values)
    except ValidationError as error:
        raise UserError(f"--mean and --std: {sentence('normalization', error)}") from None


def _card(
    architecture: Architecture,
    names: list[str],
    normalization: Normalization,
    side: int,
    known: Published | None,
    asked: Asked,
    path: Path,
) -> ClassifierCard:
    content = {
        "weights_sha256": "0" * 64,
        "architecture": architecture.model_dump(),
        "classes": names,
        "normalization": normalization.model_dump(),
        "input_side": side,
        "preparation": _preparation(side, known, asked),
        "training": {"imported": {"file": path.name, "sha256": sha256_of(path), "bgr": asked.bgr}},
    }
    try:
        return ClassifierCard.model_validate(content)
    except ValidationError as error:
        raise UserError(f"the model cannot be described: {sentence('card', error)}; give other options") from None


def _preparation(side: int, known: Published | None, asked: Asked) -> dict[str, Any]:
    """As the library prepares images, at the size of these; as they are where they are far smaller than its own."""
    scaled = side if known is None or side <= known.side // 2 else round(known.resize * side / known.side)
    return {
        "resize": scaled if asked.resize is None else asked.resize,
        "crop": side,
        "interpolation": asked.interpolation or (known.interpolation if known else "bilinear"),
        "keep_aspect": known.keep_aspect if known else True,
    }


def _turn_channels(network: nn.Module, text: str) -> None:
    """Turns the first layer around, so that the network takes red, green and blue in this order."""
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.in_channels != _RGB or first.groups != 1:
        raise UserError(f"the first layer of {text} cannot be turned to RGB; leave --bgr out and have it retrained")
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))


def _text(architecture: Architecture) -> str:
    """As it is written on a command line."""
    settings = architecture.model_dump()
    own = next((value for name, value in settings.items() if name != "name"), None)
    return architecture.name if own is None else f"{architecture.name}:{own}"
