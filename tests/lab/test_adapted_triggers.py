"""A trigger that is sought through a defense: where it is tried, and that it does something."""

from __future__ import annotations

from pathlib import Path

import pytest

import stressed
import tiny
from refine.core.errors import UserError
from refine.poisoning.adversarial.settings import Perturbation
from refine_lab.adaptive.measure import Wanted, measure


def _experiment(folder: Path) -> Path:
    tiny.raw(folder / "data/raw", images=60)
    stressed.model(folder / "models/backdoor")
    tiny.defense_folder(folder / "models/refine", folder / "models/backdoor")
    return folder


def _wanted(steps: int = 20, target: int = 1) -> Wanted:
    return Wanted(target, Perturbation(epsilon=64.0, step=8.0, steps=steps, random_start=False), 1, tiny.CPU)


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
