"""Parameters files of runs: what of them counts, and what differs between two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refine.core.errors import UserError
from refine.core.params import ParamsFile
from refine.core.registry import DEFENSES, component, names
from refine.core.yaml12 import shown
from refine.defending.params import STAGE_OF_ITS_OWN
from refine.defending.params import split_of as split_named
from refine_lab.systems import regime

IN_THE_NAME = ("poison_dataset.attack.name", "defenses", "splits")
"""Parameters that the name of a run shows, besides its seeds."""

_ABSENT = object()
_OF_A_DEFENSE = ("train_refine", "defense_data", "defense_settings", "split_settings", "other_images")
"""Sections that a defense is trained by, whatever the attack."""
_NOT_TOLD: dict[str, dict[str, Any]] = {
    "poison_dataset": {"held_out": 0.0, "contaminated": 0.0},
    "train_refine": {"initial_contrast": 1.0},
}
"""What runs that were recorded by early versions had, by section, and do not tell."""


def read_params(path: Path) -> dict[str, Any]:
    """All sections of a parameters file, read by the same rules as in the stages.

    Raises:
        UserError: it cannot be read, or has an unknown section.
    """
    return dict(ParamsFile(path).content)


def attack_of(params: dict[str, Any]) -> str:
    """The name of the attack."""
    return str(params["poison_dataset"]["attack"]["name"])


def effective(params: dict[str, Any], defense: str) -> dict[str, Any]:
    """The part of a parameters file that a run with one of its defenses depends on.

    Settings of other sources, attacks, defenses and splits are left out, and so are sections of other defenses' stages,
    and for a defense with another data regime, what concerns images without labels.
    A missing entry means defaults, as an empty one does.
    """
    split = split_of(params, defense)
    others = other_images(params, defense)
    told = {section: {**early, **params[section]} for section, early in _NOT_TOLD.items()}
    if regime(defense) != "unlabeled":
        told["poison_dataset"]["contaminated"] = 0.0
    kept = {
        **params,
        **told,
        "other_images": others,
        "sources": {name: _entry(params["sources"], name)[name] for name in (params["download"]["source"], *others)},
        "attacks": _entry(params["attacks"], attack_of(params)),
        "defense_settings": _entry(params["defense_settings"], defense),
        "split_settings": _entry(params.get("split_settings"), split) if split else {},
    }
    unused = ["train_refine"]
    if defense == STAGE_OF_ITS_OWN:
        unused = ["defense_data", "defense_settings"]
    return {name: content for name, content in kept.items() if name not in ("defenses", "splits", *unused)}


def other_images(params: dict[str, Any], defense: str) -> list[str]:
    """The source of the images of a defense without labels, where they are not those of the data set."""
    return list(params.get("other_images") or []) if regime(defense) == "unlabeled" else []


def held_out(params: dict[str, Any]) -> float:
    """Share of the training images that the attacker, and so the classifier, does not have."""
    share: float = {**_NOT_TOLD["poison_dataset"], **params["poison_dataset"]}["held_out"]
    return share


def split_of(params: dict[str, Any], defense: str) -> str | None:
    """The split of the training set that a defense is given by its settings; None if it needs none, or is not there."""
    if defense == STAGE_OF_ITS_OWN or defense not in names(DEFENSES):
        return None
    model = component(DEFENSES, defense, "defense").Params
    return split_named(model.model_validate(_entry(params["defense_settings"], defense)[defense]))


def seeds(params: dict[str, Any], defense: str) -> dict[str, int]:
    """The seed of each section that has one and that a run with this defense depends on."""
    return {
        name: content["seed"]
        for name, content in effective(params, defense).items()
        if isinstance(content, dict) and "seed" in content
    }


def same_experiment(params: dict[str, Any], other: dict[str, Any], defense: str) -> bool:
    """Whether runs with this defense differ in their seeds alone."""
    return _without_seeds(params, defense) == _without_seeds(other, defense)


def changes(preset: dict[str, Any], params: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Parameters that differ, by their dotted names; None for those that only the preset has."""
    found: dict[str, Any] = {}
    for key in sorted(preset.keys() | params.keys()):
        name, before, after = f"{above}{key}", preset.get(key, _ABSENT), params.get(key, _ABSENT)
        if before == after:
            continue
        there = [each for each in (before, after) if each is not _ABSENT]
        if all(isinstance(each, dict) for each in there) and any(there):
            found |= changes(preset.get(key, {}), params.get(key, {}), f"{name}.")
        else:
            found[name] = None if after is _ABSENT else after
    return found


def of_defense(preset: dict[str, Any], params: dict[str, Any], defense: str) -> dict[str, Any]:
    """What a defense is trained by otherwise than in a preset, but for its seed, by dotted names."""
    one, two = (
        {name: _unseeded(content) for name, content in effective(each, defense).items() if name in _OF_A_DEFENSE}
        for each in (preset, params)
    )
    return changes(one, two)


def put(params: dict[str, Any], name: str, value: Any) -> None:
    """Sets a parameter by its dotted name.

    Raises:
        UserError: it goes below what is no mapping.
    """
    *parents, last = name.split(".")
    inner = params
    for parent in parents:
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"{name} cannot be changed, because {parent} is {shown(inner)}; give {parent} as a whole")
    inner[last] = value


def has(params: dict[str, Any], name: str) -> bool:
    """Whether a parameters file tells a parameter, by its dotted name."""
    inner: Any = params
    for part in name.split("."):
        if not isinstance(inner, dict) or part not in inner:
            return False
        inner = inner[part]
    return True


def _entry(room: dict[str, Any] | None, name: str) -> dict[str, Any]:
    return {name: (room or {}).get(name) or {}}


def same_classifier(params: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two runs have trained a classifier by the same settings, but for the seed, on as many of the images."""
    alike = _unseeded(params["train_backdoor"]) == _unseeded(other["train_backdoor"])
    return alike and held_out(params) == held_out(other)


def same_defense(params: dict[str, Any], other: dict[str, Any], defense: str) -> bool:
    """Whether two runs have trained a defense by the same settings, and with as much data from the same sources.

    Neither seeds count nor contaminated images: without an attack there is no trigger, so no clean run could have any.
    """
    one, two = (effective(each, defense) for each in (params, other))
    alike = all(_unseeded(one.get(name)) == _unseeded(two.get(name)) for name in _OF_A_DEFENSE)
    return alike and all(one["sources"][name] == two["sources"][name] for name in one["other_images"])


def _without_seeds(params: dict[str, Any], defense: str) -> dict[str, Any]:
    sections = effective(params, defense)
    return {name: _unseeded(content) for name, content in sections.items()}


def _unseeded(section: Any) -> Any:
    return {**section, "seed": None} if isinstance(section, dict) and "seed" in section else section
