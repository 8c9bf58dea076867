"""Sections on attacks and defenses: all that their docstrings say, and the defaults as they are."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from refine.core.registry import ATTACKS, DEFENSES, component, names
from refine.training.recipe import Recipe
from refine_lab.lists.rows import Row, Rows
from refine_lab.pages import gallery
from refine_lab.pages.docstrings import described, remarks, settings_of
from refine_lab.pages.gallery import section
from support import PROJECT

COMPONENTS = [(room, name) for room in (ATTACKS, DEFENSES) for name in names(room)]
CANDIDATES = {
    "every class": "whole training set",
    "other classes": "images of all classes except the target",
    "the target class": "fraction of the target class",
}


def _params(attack: str) -> type[BaseModel]:
    model: type[BaseModel] = component(ATTACKS, attack, "a test").Params
    return model


def _section(room: str, name: str) -> str:
    return section(room, name, "a picture", Path("none.png"), Path("page.md"))


@pytest.mark.parametrize(("room", "name"), COMPONENTS)
def test_what_a_component_says_of_itself_and_of_all_its_settings_is_on_the_page(room: str, name: str) -> None:
    module, page = component(room, name, "a test"), _section(room, name)
    assert page.startswith(f"### `{name}`\n\n")
    assert (inspect.getdoc(module) or "no docstring") in page
    params = getattr(module, "Params", None)
    if params is not None:
        first, _, _ = (inspect.getdoc(params) or "no docstring").partition("Attributes:\n")
        assert first.strip() in page


@pytest.mark.parametrize(("sections", "room"), [(gallery.attacks, ATTACKS), (gallery.defenses, DEFENSES)])
def test_there_is_a_section_for_each_component_those_of_the_list_first(sections: Any, room: str) -> None:
    listed = Rows(preset="quick", rows=[Row(attack="wanet", defense="shrinkpad")])
    text = sections(listed, PROJECT, PROJECT / "docs/page.md")
    found = [line.strip("# `") for line in text.splitlines() if line.startswith("### ")]
    first = "wanet" if room == ATTACKS else "shrinkpad"
    assert found == [first, *(name for name in names(room) if name != first)]


def test_variants_stand_between_the_picture_and_the_settings(tmp_path: Path) -> None:
    (tmp_path / "preview.png").touch()
    page = section(ATTACKS, "adaptive_patch", "a caption", tmp_path / "preview.png", tmp_path / "docs/page.md")
    before, _, after = page.partition("(VGG, DenseNet, ViT: rate 0.03, cover rate 0.06).")
    assert "![a caption: adaptive_patch](../preview.png)" in before
    assert "| `cover_rate`" in after


def test_a_model_that_says_nothing_first_has_no_remarks() -> None:
    assert remarks(_params("trojan")) == ""
    assert "\n\n\n" not in _section(ATTACKS, "trojan")


@pytest.mark.parametrize("attack", [attack for attack in names(ATTACKS) if "rate" in _params(attack).model_fields])
def test_the_page_says_what_the_rate_is_a_share_of(attack: str) -> None:
    chooses_from = component(ATTACKS, attack, "a test").Attack.chooses_from
    assert CANDIDATES[chooses_from] in described(_params(attack))["rate"]


@pytest.mark.parametrize("attack", names(ATTACKS))
def test_defaults_typed_into_the_parameters_are_the_defaults(attack: str) -> None:
    typed: dict[str, Any] = {}
    for name, default, _ in settings_of(_params(attack)()):
        *above, last = name.strip("`").split(".")
        place = typed
        for part in above:
            place = place.setdefault(part, {})
        if not last.endswith("recipe"):
            place[last] = yaml.safe_load(default.strip("`"))
    assert _params(attack).model_validate(typed) == _params(attack)()


@pytest.mark.parametrize("attack", names(ATTACKS))
def test_every_setting_is_in_the_table_with_what_it_means(attack: str) -> None:
    lines = settings_of(_params(attack)())
    assert [name for name, _, _ in lines] == [f"`{name}`" for name in _leaves(_params(attack)())]
    assert all(meaning for _, _, meaning in lines)


def _leaves(settings: BaseModel) -> list[str]:
    found = []
    for name, value in settings:
        nested = isinstance(value, BaseModel) and not isinstance(value, Recipe)
        found += [f"{name}.{leaf}" for leaf in _leaves(value)] if nested else [name]
    return found


def test_a_default_that_a_group_gives_is_shown_and_not_null() -> None:
    shown = {name: default for name, default, _ in settings_of(_params("label_consistent")())}
    assert shown["`source.network.name`"] == "`resnet18`"
    assert shown["`perturbation.random_start`"] == "`false`"
    assert shown["`source.recipe`"] == "150 epochs, batch 128, sgd at 0.1"
    assert shown["`source.folder`"] == "`null`"
