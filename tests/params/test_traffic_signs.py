"""Nothing mirrors traffic signs: some would become others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from refine.backdoor.params import TrainBackdoorParams
from refine.core.params import ParamsFile, Section
from refine.core.registry import ATTACKS, DEFENSES, component, names
from refine.defending.params import STAGE_OF_ITS_OWN, settings
from refine.defenses.refine.training.params import TrainRefineParams
from refine.splitting import params as splitting
from support import PROJECT

FILE = ParamsFile(PROJECT / "presets/compare_gtsrb.yaml")


def _mirrored(found: Any, place: str) -> Iterator[str]:
    """Settings that mirror images, by their names."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from _mirrored(value, f"{place}.{name}")
    elif place.endswith(".flip") and found:
        yield place


def _attack(name: str) -> Section:
    model: type[Section] = component(ATTACKS, name, "attacks").Params
    return FILE.component("attacks", name, model)


def _resolved() -> dict[str, Section]:
    defenses = [name for name in names(DEFENSES) if name != STAGE_OF_ITS_OWN]
    return {
        **{f"attacks.{name}": _attack(name) for name in names(ATTACKS)},
        **{f"defense_settings.{name}": settings(FILE, name) for name in defenses},
        "train_backdoor": FILE.section("train_backdoor", TrainBackdoorParams),
        "train_refine": FILE.section("train_refine", TrainRefineParams),
    }


@pytest.mark.parametrize("section", _resolved())
def test_no_setting_mirrors_traffic_signs(section: str) -> None:
    assert not [*_mirrored(_resolved()[section].model_dump(), section)]


def test_the_split_turns_them_little() -> None:
    assert splitting.settings(FILE, "sd").model_dump()["degrees"] <= 15
