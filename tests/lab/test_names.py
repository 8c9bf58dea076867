"""Names of recorded runs, the parameters that count for one, and what differs between two of them."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from refine.core.errors import UserError
from refine_lab.runs.name import name_of
from refine_lab.runs.parameters import changes, effective, same_defense, same_experiment
from support import TINY_PARAMS


def _params(**sections: dict[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = copy.deepcopy(TINY_PARAMS)
    for section, content in sections.items():
        params[section] |= content
    return params


@pytest.mark.parametrize("defense", ["refine", "shrinkpad"])
def test_a_name_says_data_preset_attack_defense_variant_and_seed(defense: str) -> None:
    assert str(name_of(_params(), "quick", defense, "default")) == f"folder-quick-badnets-{defense}-default-s1"


def test_a_run_has_one_seed() -> None:
    with pytest.raises(UserError, match="a recorded run has one seed"):
        name_of(_params(train_refine={"seed": 2}), "quick", "refine", "default")
    with pytest.raises(UserError, match="a recorded run has one seed"):
        name_of(_params(defense_data={"seed": 2}), "quick", "shrinkpad", "default")


def test_seeds_of_other_defenses_do_not_count() -> None:
    assert name_of(_params(train_refine={"seed": 2}), "quick", "shrinkpad", "default").seed == 1
    assert name_of(_params(defense_data={"seed": 2}), "quick", "refine", "default").seed == 1


@pytest.mark.parametrize("word", ["two words", "../up", "UPPER", ""])
def test_a_name_is_made_of_plain_words(word: str) -> None:
    with pytest.raises(UserError, match=re.escape(repr(word))):
        name_of(_params(), "quick", "refine", word)


def test_a_run_with_refine_depends_on_no_section_of_further_defenses() -> None:
    content = effective(_params(), "refine")
    assert "train_refine" in content
    assert not any(content[section] for section in content if section.startswith(("defense", "split")))


def test_a_run_with_another_defense_depends_on_its_own_settings_alone() -> None:
    params = _params(defense_settings={"shrinkpad": {"pad": 2}, "other": {"a": 1}})
    content = effective(params, "shrinkpad")
    assert content["defense_settings"] == {"shrinkpad": {"pad": 2}}
    assert "defense_data" in content
    assert not {"train_refine", "defenses"} & content.keys()


def test_a_run_depends_on_the_split_that_its_defense_is_given_and_on_no_other() -> None:
    params = _params(split_settings={"sd": {"draws": 1}, "oracle": {"seed": 3}}) | {"splits": ["sd", "oracle"]}
    assert effective(params, "dbr")["split_settings"] == {"sd": {"draws": 1}}
    other = {**params, "defense_settings": {"dbr": {"split": "oracle"}}}
    assert effective(other, "dbr")["split_settings"] == {"oracle": {"seed": 3}}
    assert "splits" not in effective(params, "dbr")
    ungated = {**params, "split_settings": {"sd": {"draws": 1, "gate": "ignore"}}}
    assert not same_defense(params, ungated, "dbr"), "the gate decides whether it does anything"
    assert same_defense(params, ungated, "shrinkpad")
    for defense in ("refine", "shrinkpad"):
        old = {name: content for name, content in params.items() if not name.startswith("split")}
        assert effective(params, defense) == effective(old, defense)


def test_a_run_depends_on_the_settings_of_a_defender_s_other_images() -> None:
    params = _params(sources={"folder": {"side": 16}, "gtsrb_subset": {}}) | {"other_images": ["gtsrb_subset"]}
    assert effective(params, "refine")["sources"].keys() == {"folder", "gtsrb_subset"}
    assert not same_defense(params, {**params, "other_images": []}, "refine")
    others = {**params["sources"], "gtsrb_subset": {"part": "dev"}}
    assert not same_defense(params, {**params, "sources": others}, "refine")
    assert same_defense(params, {**params, "other_images": []}, "d3"), "which has images with labels"
    assert effective(params, "d3")["other_images"] == []
    contaminated = {**params, "poison_dataset": {**params["poison_dataset"], "contaminated": 0.1}}
    assert same_defense(params, contaminated, "refine")


def test_runs_that_do_not_tell_of_other_or_contaminated_images_had_none() -> None:
    params = _params()
    old = {name: content for name, content in params.items() if name != "other_images"}
    assert effective(old, "refine") == effective({**params, "other_images": []}, "refine")
    new = _params(poison_dataset={"contaminated": 0.0})
    assert effective(old, "bcu") == effective(new, "bcu")
    assert effective(old, "bcu") != effective(_params(poison_dataset={"contaminated": 0.1}), "bcu")


def test_settings_of_what_is_not_chosen_do_not_count_and_a_missing_entry_means_defaults() -> None:
    params = _params(attacks={"badnets": {}, "sig": {"rate": 0.5}}, sources={"cifar10": {}})
    bare = _params(attacks={"sig": {"rate": 0.1}}) | {"attacks": None}
    assert effective(params, "refine") == effective(bare, "refine")
    assert effective(params, "refine") != effective(_params(), "refine")


@pytest.mark.parametrize("defense", ["refine", "shrinkpad"])
def test_runs_of_one_experiment_differ_in_their_seeds_alone(defense: str) -> None:
    seeds = {section: {"seed": 7} for section in ("poison_dataset", "train_backdoor", "train_refine", "defense_data")}
    assert same_experiment(_params(), _params(**seeds), defense)
    assert not same_experiment(_params(), _params(train_backdoor={"network": {"name": "airbench"}}), defense)
    assert same_experiment(_params(), _params(train_refine={"transform": {}}), defense) == (defense != "refine")


def test_changes_are_differences_by_dotted_names() -> None:
    preset, params = _params(), _params(train_refine={"seed": 2, "recipe": "paper"}, attacks={"badnets": {"rate": 0.3}})
    found = changes(preset, params)
    assert found == {"attacks.badnets.rate": 0.3, "train_refine.seed": 2, "train_refine.recipe": "paper"}
    assert changes(preset, preset) == {}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {"encoder": {}}, {"encoder": {}}),
        ({"encoder": {}}, {}, {"encoder": None}),
        ({"encoder": {"epochs": 8, "lr": 0.2}}, {"encoder": None}, {"encoder": None}),
        ({"encoder": None}, {"encoder": {"epochs": 8}}, {"encoder": {"epochs": 8}}),
        ({"attack": {}}, {"attack": {"rate": 0.1}}, {"attack.rate": 0.1}),
        ({"attack": {"rate": 0.1}}, {"attack": {}}, {"attack.rate": None}),
        ({}, {"attack": {"rate": 0.1}}, {"attack.rate": 0.1}),
    ],
)
def test_a_mapping_that_is_there_differs_from_none(
    before: dict[str, Any], after: dict[str, Any], found: dict[str, Any]
) -> None:
    assert changes(before, after) == found
