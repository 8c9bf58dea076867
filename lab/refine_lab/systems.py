"""Names and labels of systems: the classifier without defense, and each defended one."""

from __future__ import annotations

from functools import cache
from typing import Any

from refine.core.registry import DEFENSES, component, names

BARE = "no_defense"
"""The classifier as it is."""


@cache
def label(system: str) -> str:
    """What tables and pictures call a system: the title of its defense; the bare name of one that is not there."""
    if system == BARE:
        from refine.defending.protocol.defense import NoDefense  # loads torch, which most commands do without

        return NoDefense.title
    return str(_defense(system).title) if system in names(DEFENSES) else system


def regime(defense: str) -> str:
    """The data that a defense needs, see `refine.defending.protocol.defense.Regime`; empty of one that is not there."""
    return str(_defense(defense).regime) if defense in names(DEFENSES) else ""


def _defense(name: str) -> Any:
    return component(DEFENSES, name, "defense").Defended
