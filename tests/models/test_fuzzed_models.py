"""Two hundred model folders of an enemy: each is refused in one sentence, or answers with numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import cast

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from hostile import Files, bytes_like, fuzzed, json_like, refusal, written
from refine.defending import loading
from refine.defending.protocol.defense import Defense
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier
from tiny import classifier_folder, defense_folder

CARD, WEIGHTS = "card.json", "weights.safetensors"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """A classifier and its defense."""
    home = tmp_path_factory.mktemp("healthy")
    classifier_folder(home / "classifier")
    defense_folder(home / "refine", home / "classifier")
    folders = [home / name for name in ("classifier", "refine")]
    return {folder.name: Files({name: (folder / name).read_bytes() for name in (CARD, WEIGHTS)}) for folder in folders}


@fuzzed(100)
def test_a_classifier_is_refused_or_answers(random: Random, healthy: dict[str, Files], tmp_path: Path) -> None:
    folder = written(tmp_path / "classifier", _model_like(random, healthy["classifier"]))
    _judge(folder, lambda: classifiers.load(folder)[0])


@fuzzed(100)
def test_a_defense_is_refused_or_answers(random: Random, healthy: dict[str, Files], tmp_path: Path) -> None:
    classifier = written(tmp_path / "classifier", healthy["classifier"])
    folder = written(tmp_path / "refine", _model_like(random, healthy["refine"]))
    _judge(folder, lambda: loading.load(folder, classifier))


def _judge(folder: Path, load_it: Callable[[], nn.Module]) -> None:
    answers = []

    def use() -> None:
        loaded = load_it()
        cast(Classifier, getattr(loaded, "classifier", loaded)).input_side = None  # that of the card may be any
        pixels = torch.full((1, 3, 16, 16), 0.5)
        answers.append(loaded(pixels))
        if isinstance(loaded, Defense):
            answers.append(loaded.probabilities(pixels))

    if refusal(use, folder) is None:
        assert answers
        assert all(torch.isfinite(answer).all() for answer in answers)


def _model_like(random: Random, files: Files) -> Files:
    """A folder whose card or weights are others, and whose sum is mostly the right one."""
    card, weights = files[CARD], files[WEIGHTS]
    change = random.choice(("card", "card", "card bytes", "header", "tensor", "values", "values", "bytes"))
    if change == "card":
        card = json_like(random, card)
    elif change == "card bytes":
        card = bytes_like(random, card)
    elif change == "values":
        weights = _values_like(random, weights)
    elif change == "bytes":
        weights = bytes_like(random, weights, places=random.choice((16, 2000, 2**30)))
    else:
        end = 8 + int.from_bytes(weights[:8], "little")
        header = (json_like if change == "header" else _header_like)(random, weights[8:end])
        weights = len(header).to_bytes(8, "little") + header + weights[end:]
    if random.random() < 0.95:
        card = card.replace(*(hashlib.sha256(data).hexdigest().encode() for data in (files[WEIGHTS], weights)))
    made = Files({CARD: card, WEIGHTS: weights})
    if random.random() < 0.05:
        name = random.choice((CARD, WEIGHTS))
        made[f"{name}/inside"] = made.pop(name)
    return made


def _values_like(random: Random, weights: bytes) -> bytes:
    tensors = load(weights)
    tensor = tensors[random.choice(sorted(tensors))].flatten()
    values = (
        (float("nan"), float("inf"), -1.0, -3e38, 3e38, 1e-45, 0.0) if tensor.is_floating_point() else (-1, 2, 2**62)
    )
    tensor[: random.choice((1, len(tensor)))] = random.choice(values)
    return save(tensors)


def _header_like(random: Random, healthy: bytes) -> bytes:
    """A header in which a tensor of the same bytes has another shape, type, name or place."""
    header = json.loads(healthy)
    name = random.choice(sorted(header))
    entry = header[name]
    change = random.choice(("shape", "shape", "type", "name", "place"))
    if change == "shape":
        entry["shape"] = [*entry["shape"][::-1], *random.choice(([], [1], [0], [2**40], [0, 2**62]))]
    elif change == "type":
        entry["dtype"] = random.choice(("I32", "U32", "F64", "BF16", "F8_E4M3", "BOOL"))
    elif change == "name":
        header[random.choice(("", "x" * 10_000, "transform.\n"))] = header.pop(name)
    else:
        entry["data_offsets"] = [random.choice((0, 4, 2**40)) for _ in range(2)]
    return json.dumps(header).encode()
