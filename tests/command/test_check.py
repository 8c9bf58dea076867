"""The check of a whole file finds a slip anywhere in it, and needs no torch."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import PROGRAM, Ended, refine
from refine.command.parameters import check
from refine.core.errors import UserError
from refine.core.registry import DEFENSES, SPLITS, component, names
from support import PROJECT, TINY_PARAMS, WATCHDOG, environment, is_one_sentence

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    """A right parameters file, for the test to spoil."""
    return copy.deepcopy(TINY_PARAMS)


def written(folder: Path, content: Content) -> Path:
    """A file that holds the content."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def refusal(folder: Path, content: Content) -> str:
    """The sentence, less the file's path, with which the content is refused."""
    with pytest.raises(UserError) as refused:
        check(written(folder, content))
    return str(refused.value).removeprefix(f"{folder}/params.yaml: ")


def test_a_right_file_passes(tmp_path: Path, content: Content) -> None:
    check(written(tmp_path, content))


def test_an_unknown_attack_lists_the_known_ones(tmp_path: Path, content: Content) -> None:
    content["poison_dataset"]["attack"]["name"] = "badnet"
    message = refusal(tmp_path, content)
    assert message.startswith("poison_dataset.attack.name: 'badnet' is not known, did you mean 'badnets'?")
    assert all(name in message for name in names("refine.attacks"))


def test_an_unknown_source_lists_the_known_ones(tmp_path: Path, content: Content) -> None:
    content["download"]["source"] = "cifar11"
    message = refusal(tmp_path, content)
    assert message.startswith("download.source: 'cifar11' is not known, did you mean 'cifar10'?")
    assert ", ".join(names("refine.sources")) in message


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path, content: Content) -> None:
    content["train_backdoor"]["network"]["name"] = "vgg"
    message = refusal(tmp_path, content)
    assert message.startswith("train_backdoor.network.name: 'vgg' is not known, choose from ")
    assert "resnet18" in message


@pytest.mark.parametrize("name", ["../none", "none.py", "__init__", "", "os"])
def test_only_a_file_of_the_room_can_be_chosen(name: str) -> None:
    with pytest.raises(UserError, match="is not known"):
        component("refine.attacks", name, "poison_dataset.attack.name")


def test_the_settings_of_an_attack_that_is_not_chosen_are_checked_too(tmp_path: Path, content: Content) -> None:
    content["poison_dataset"]["attack"]["name"] = "none"
    content["attacks"]["badnets"] = {"rat": 0.1}
    assert refusal(tmp_path, content) == "attacks.badnets: 'rat' is not known, did you mean 'rate'?"


def test_settings_of_an_attack_that_does_not_exist_are_refused(tmp_path: Path, content: Content) -> None:
    content["attacks"]["blendid"] = {}
    assert "attacks: 'blendid' is not known" in refusal(tmp_path, content)


def test_the_chosen_attack_has_its_defaults_where_no_settings_are_given(tmp_path: Path, content: Content) -> None:
    del content["attacks"]["badnets"]
    check(written(tmp_path, content))


@pytest.mark.parametrize("section", ["attacks", "sources", "split_settings", "defense_settings"])
def test_the_section_of_settings_itself_is_needed_because_dvc_tracks_it(
    tmp_path: Path, content: Content, section: str
) -> None:
    del content[section]
    assert refusal(tmp_path, content).startswith(f"{section} is missing; write `{section}: {{}}` there")


def test_the_name_of_the_attack_is_all_that_must_change(tmp_path: Path, content: Content) -> None:
    content["attacks"]["badnets"] = {"rate": 0.3, "patch_side": 5}
    for name in names("refine.attacks"):
        content["poison_dataset"]["attack"]["name"] = name
        content["attacks"].setdefault(name, {})
        check(written(tmp_path, content))


def test_an_attack_is_given_its_own_settings_and_no_other_attacks() -> None:
    shipped = {name: set(component("refine.attacks", name, "").Params.model_fields) for name in names("refine.attacks")}
    assert shipped["none"] == set()
    assert "patch_side" in shipped["badnets"]
    for name in shipped:
        with pytest.raises(ValueError, match="'settings_of_another' is not known"):
            component("refine.attacks", name, "").Params.model_validate({"settings_of_another": 1})


@pytest.mark.parametrize("section", ["attacks", "sources", "split_settings", "defense_settings"])
@pytest.mark.parametrize("value", [[1], 3, "word"])
def test_a_room_of_settings_must_be_a_mapping(tmp_path: Path, content: Content, section: str, value: object) -> None:
    content[section] = value
    assert refusal(tmp_path, content) == f"{section} must be a mapping"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("download", "samples_per_shard", 0),
        ("poison_dataset", "seed", -1),
        ("train_backdoor", "seed", 1.0),
        ("train_refine", "snapshots", 0),
        ("train_refine", "unlabeled_fraction", 0),
        ("defense_data", "labeled", 0),
        ("defense_data", "unlabeled", 1.5),
        ("evaluate", "batch_size", True),
    ],
)
def test_a_slip_in_any_section_is_found_and_named(
    tmp_path: Path, content: Content, section: str, key: str, value: object
) -> None:
    content[section][key] = value
    assert refusal(tmp_path, content).startswith(f"{section}.{key}: input should be ")


def test_an_unknown_defense_comes_with_the_nearest_one_or_all(tmp_path: Path, content: Content) -> None:
    content["defenses"] = ["shrink_pad"]
    assert refusal(tmp_path, content) == "defenses: 'shrink_pad' is not known, did you mean 'shrinkpad'?"
    content["defenses"] = ["no such thing"]
    further = [name for name in names(DEFENSES) if name != "refine"]
    assert refusal(tmp_path, content) == f"defenses: 'no such thing' is not known, choose from {', '.join(further)}"


def test_every_further_defense_can_be_chosen_without_settings(tmp_path: Path, content: Content) -> None:
    content["defenses"] = [name for name in names(DEFENSES) if name != "refine"]
    content["splits"] = names(SPLITS)
    check(written(tmp_path, content))


def test_a_split_that_a_chosen_defense_needs_has_to_be_listed(tmp_path: Path, content: Content) -> None:
    content["defenses"] = ["dbr"]
    told = "defense_settings.dbr.split: 'sd' is not listed in splits; write `splits: [sd]` there"
    assert refusal(tmp_path, content) == told
    content["splits"], content["defense_settings"] = ["sd"], {"dbr": {"split": "oracle"}}
    told = "defense_settings.dbr.split: 'oracle' is not listed in splits; write `splits: [sd, oracle]` there"
    assert refusal(tmp_path, content) == told
    content["splits"] = ["sd", "oracle"]
    check(written(tmp_path, content))
    content["defenses"], content["splits"] = [], []
    check(written(tmp_path, content))


def test_other_images_are_a_list_of_one_known_source_at_most(tmp_path: Path, content: Content) -> None:
    content["other_images"] = "gtsrb_subset"
    assert refusal(tmp_path, content) == "other_images must be a list such as [gtsrb_subset], not 'gtsrb_subset'"
    content["other_images"] = ["gtsrb_subst"]
    assert refusal(tmp_path, content) == "other_images: 'gtsrb_subst' is not known, did you mean 'gtsrb_subset'?"
    content["other_images"] = ["cifar100", "gtsrb_subset"]
    assert refusal(tmp_path, content) == "other_images: cifar100, gtsrb_subset are 2 sources; keep one"
    content["other_images"] = [content["download"]["source"]]
    assert "is the data set itself; write `other_images: []`" in refusal(tmp_path, content)
    content["other_images"] = ["webdataset"]
    assert refusal(tmp_path, content).startswith("sources.webdataset.train: Field required")
    content["other_images"], content["poison_dataset"]["contaminated"] = [], 0.01
    content["poison_dataset"]["attack"]["name"] = "none"
    assert "the attack none has no trigger" in refusal(tmp_path, content)
    content["poison_dataset"]["attack"]["name"] = "badnets"
    del content["other_images"]
    assert refusal(tmp_path, content) == "other_images is missing; write `other_images: []` there for none"


def test_splits_are_a_list_of_known_names_and_their_settings_are_checked(tmp_path: Path, content: Content) -> None:
    content["splits"] = "sd"
    assert refusal(tmp_path, content) == "splits must be a list such as [sd], not 'sd'"
    content["splits"] = ["orakle"]
    assert refusal(tmp_path, content) == "splits: 'orakle' is not known, did you mean 'oracle'?"
    content["splits"] = ["sd", "sd"]
    assert refusal(tmp_path, content) == "splits: sd is listed twice; remove one"
    content["splits"], content["split_settings"] = [], {"oracle": {"purty": 1}}
    assert refusal(tmp_path, content) == "split_settings.oracle: 'purty' is not known, did you mean 'purity'?"
    content["split_settings"] = {"oracle": {"alpha_c": 0.9, "alpha_p": 0.2}}
    told = "split_settings.oracle: alpha_c and alpha_p are more than all images; lower one"
    assert refusal(tmp_path, content) == told


def test_settings_of_a_defense_that_is_not_chosen_are_checked_too(tmp_path: Path, content: Content) -> None:
    content["defense_settings"]["shrinkpad"] = {"pat": 4}
    assert refusal(tmp_path, content) == "defense_settings.shrinkpad: 'pat' is not known, did you mean 'pad'?"


def test_settings_of_the_defense_with_a_section_of_its_own_are_sent_there(tmp_path: Path, content: Content) -> None:
    content["defense_settings"]["refine"] = {}
    told = "defense_settings: the settings of refine are those of train_refine; remove it"
    assert refusal(tmp_path, content) == told


@pytest.mark.parametrize("section", sorted(TINY_PARAMS))
def test_every_section_is_needed(tmp_path: Path, content: Content, section: str) -> None:
    del content[section]
    assert "missing" in refusal(tmp_path, content)


def test_the_command_says_one_sentence_and_ends_with_status_1(
    tmp_path: Path, content: Content, capsys: pytest.CaptureFixture[str]
) -> None:
    content["evaluate"]["batch"] = 1
    ended = refine(capsys, "check", written(tmp_path, content))
    assert ended.is_one_sentence("evaluate: 'batch' is not known, did you mean 'batch_size'?")


def test_the_command_is_silent_about_a_right_file_which_is_params_yaml_unless_named(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, content)
    monkeypatch.chdir(tmp_path)
    assert refine(capsys, "check") == Ended(0, "", "")


def test_the_command_finds_a_wrong_setting_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFINE_DEVICE", "gpu")
    assert refine(capsys, "check").is_one_sentence("REFINE_DEVICE=gpu is not understood")


WITHOUT_TORCH = """
import runpy, sys
from pathlib import Path
from importlib import import_module
from refine.core.registry import names

rooms = ("refine.attacks", "refine.sources", "refine.shards.format", "refine.core")
for room in rooms:
    for name in names(room):
        import_module(f"{room}.{name}")
import_module("refine.download.download")
import_module("refine.defending.params")
for stage in sorted(Path("stages").glob("*.py")):
    runpy.run_path(str(stage), run_name="not_main")
from refine.command.parameters import check
check(Path("params.yaml"))
heavy = sorted({"torch", "torchvision", "webdataset", "safetensors"} & set(sys.modules))
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def test_neither_the_check_nor_the_download_nor_the_start_of_a_stage_imports_torch() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "shrinkpad"],  # of stages that are told a defense
        cwd=PROJECT,
        env=environment(PYTHONPATH="src", PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_wrong_file_stops_the_command_as_a_process_with_one_sentence(tmp_path: Path, content: Content) -> None:
    content["train_backdoor"]["recipe"]["epoch"] = 1
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "check", str(written(tmp_path, content))],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(PROJECT / "src"), PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert is_one_sentence(result, "train_backdoor.recipe: 'epoch' is not known, did you mean 'epochs'?")
