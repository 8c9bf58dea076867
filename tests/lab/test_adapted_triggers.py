"""A trigger that is sought through a defense: where it is tried, and that it does something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import stressed
import tiny
from refine.core.errors import UserError
from refine.models import classifier as classifiers
from refine.poisoning.adversarial.pattern import Ball, Box
from refine.shards.reading.reader import read_split
from refine_lab.adaptive.measure import Wanted, measure


def _experiment(folder: Path) -> Path:
    tiny.raw(folder / "data/raw", images=60)
    stressed.model(folder / "models/backdoor")
    tiny.defense_folder(folder / "models/refine", folder / "models/backdoor")
    return folder


def _wanted(steps: int = 20, target: int = 1) -> Wanted:
    return Wanted(target, Box(64.0, 8.0), steps, 1, tiny.CPU)


def test_patterns_are_tried_where_they_were_sought_and_elsewhere(tmp_path: Path) -> None:
    one, clean = _experiment(tmp_path / "one"), _experiment(tmp_path / "clean")
    other = tmp_path / "other"
    tiny.defense_folder(other, one / "models/backdoor", seed=3)
    found = measure(one, one / "models/refine", [other], clean, _wanted())
    pairs = [(row["sought_through"], row["tried_on"]) for row in found["rows"]]
    systems = ["no_defense", "refine", "other"]
    assert pairs == [
        *[(sought, tried) for sought in systems[:2] for tried in systems],
        ("clean no_defense", "clean no_defense"),
        ("clean refine", "clean refine"),
    ]
    assert found["images"] == 20
    bare = found["rows"][0]
    assert bare["success"] > bare["without"] + 0.2  # a trained classifier yields to a pattern of that size
    for row in found["rows"]:
        assert row["interval_95"][0] <= row["success"] <= row["interval_95"][1]
        assert row["success"] + row["robust_accuracy"] <= 1 + 1e-6
    assert measure(one, one / "models/refine", [other], clean, _wanted()) == found


def test_a_class_that_is_not_there_is_refused(tmp_path: Path) -> None:
    one = _experiment(tmp_path / "one")
    with pytest.raises(UserError, match="there is no class 3"):
        measure(one, one / "models/refine", [], None, _wanted(target=3))


def test_a_pattern_beside_the_trigger_is_tried_on_triggered_images_of_both(tmp_path: Path) -> None:
    one, clean = _experiment(tmp_path / "one"), _experiment(tmp_path / "clean")
    badnets = tiny.attack("badnets", read_split(one / "data/raw/train"), patch_side=8, target=1)
    splits = tuple(read_split(one / "data/raw" / name) for name in ("train", "test"))
    tiny.poisoned(one / "data/poisoned", "badnets", badnets, splits)
    nothing = Wanted(1, Ball(1e-9, 1e-10), 1, 1, tiny.CPU, triggered=True)
    found = measure(one, one / "models/refine", [], clean, nothing)
    assert found["triggered"]
    assert found["bound"] == {"kind": "ball", "radius": 1e-9, "size": 1e-10}
    triggered = read_split(one / "data/poisoned/test")
    bare = classifiers.load(one / "models/backdoor")[0]
    expected = float((bare(triggered.images / 255).argmax(dim=1) == 1).double().mean())
    for row in found["rows"]:
        if row["tried_on"].endswith("no_defense"):
            assert row["success"] == row["without"] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UserError, match="leads to class 1; give --target 1"):
        measure(one, one / "models/refine", [], clean, replace(nothing, target=2))
    longer = measure(one, one / "models/refine", [], clean, replace(nothing, bound=Ball(8.0, 1.0), steps=20))
    assert longer["rows"][0]["success"] > expected


def test_images_without_attack_have_no_trigger(tmp_path: Path) -> None:
    one = _experiment(tmp_path / "one")
    splits = tuple(read_split(one / "data/raw" / name) for name in ("train", "test"))
    tiny.poisoned(one / "data/poisoned", "none", tiny.attack("none", splits[0]), splits)
    with pytest.raises(UserError, match="has no trigger"):
        measure(one, one / "models/refine", [], None, replace(_wanted(), triggered=True))
