"""Each class of bad input ends a stage in one sentence, with a non-zero status and nothing half written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support import TINY_PARAMS, is_one_sentence, run_stage, tiny_project, write_params


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project up to its classifier."""
    project = tiny_project(tmp_path_factory.mktemp("trained") / "project")
    for stage in ("download", "poison_dataset", "train_backdoor"):
        result = run_stage(project, stage)
        assert result.returncode == 0, result.stderr
    return project


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def _with(**sections: object) -> dict[str, object]:
    return {**TINY_PARAMS, **sections}


def _leftovers(project: Path, *outputs: str) -> list[str]:
    """Outputs that exist, and files that were begun."""
    begun = [str(path) for path in project.rglob("*.partial")]
    return begun + [output for output in outputs if (project / output).exists()]


def test_an_unknown_parameter_is_named_with_the_right_one(project: Path) -> None:
    write_params(project, _with(download={"source": "folder", "samples_per_shart": 8}))
    result = run_stage(project, "download")
    assert is_one_sentence(result, "download", "'samples_per_shart' is not known, did you mean 'samples_per_shard'?")


def test_a_value_out_of_range_is_named(project: Path) -> None:
    write_params(project, _with(train_refine={**TINY_PARAMS["train_refine"], "unlabeled_fraction": 1.5}))
    assert is_one_sentence(run_stage(project, "train_refine"), "train_refine.unlabeled_fraction", "1.5")


def test_an_unknown_data_set_comes_with_the_list(project: Path) -> None:
    write_params(project, _with(download={"source": "cifar11"}))
    result = run_stage(project, "download")
    assert is_one_sentence(result, "did you mean 'cifar10'?", "mnist5k", "folder")


def test_an_unknown_attack_comes_with_the_list(project: Path) -> None:
    write_params(project, _with(poison_dataset={"attack": {"name": "badnet"}, "seed": 1}))
    assert is_one_sentence(run_stage(project, "poison_dataset"), "did you mean 'badnets'?", "none")


def test_a_target_that_is_no_class_is_refused(copy: Path) -> None:
    write_params(copy, _with(attacks={"badnets": {"target": 3}}))
    assert is_one_sentence(run_stage(copy, "poison_dataset"), "target 3", "0 to 2")


def test_no_network_and_no_mirror_says_what_to_do(project: Path) -> None:
    write_params(project, _with(download={"source": "cifar10"}))
    result = run_stage(project, "download", https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9")
    assert is_one_sentence(result, "cifar-10-python.tar.gz", "REFINE_MIRROR")
    assert _leftovers(project, "data/raw/train", "data/raw/test") == []


def test_a_mirror_with_a_changed_file_is_refused(project: Path, tmp_path: Path) -> None:
    write_params(project, _with(download={"source": "cifar10"}))
    batches = tmp_path / "mirror/cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (batches / name).write_bytes(b"not a batch")
    result = run_stage(project, "download", REFINE_MIRROR=str(tmp_path / "mirror"))
    assert is_one_sentence(result, "data_batch_1", "not the published file")
    assert _leftovers(project, "data/raw/train", "data/raw/test") == []


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_shard_stops_the_stage_that_reads_it(copy: Path, damage: str) -> None:
    shard = copy / "data/raw/train/shard-000001.tar"
    content = bytearray(shard.read_bytes())
    shutil.rmtree(copy / "data/poisoned")
    if damage == "cut":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    else:
        shard.unlink()
    assert is_one_sentence(run_stage(copy, "poison_dataset"), "shard-000001.tar", "dvc")
    outputs = ("train", "test", "attack", "preview.png", "defender")
    assert _leftovers(copy, *(f"data/poisoned/{name}" for name in outputs)) == []


def test_a_classifier_of_another_architecture_than_its_card_says_is_refused(copy: Path) -> None:
    card = copy / "models/backdoor/card.json"
    content = json.loads(card.read_text(encoding="utf-8"))
    content["architecture"]["width"] = 16
    card.write_text(json.dumps(content), encoding="utf-8")
    assert is_one_sentence(run_stage(copy, "train_refine"), "does not fit the architecture")
    assert _leftovers(copy, "models/refine") == []


def test_a_classifier_whose_weights_were_changed_is_refused(copy: Path) -> None:
    weights = copy / "models/backdoor/weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert is_one_sentence(run_stage(copy, "train_refine"), "weights.safetensors", "sha256")


def test_a_gpu_that_is_not_there_is_an_error(copy: Path) -> None:
    result = run_stage(copy, "train_refine", REFINE_DEVICE="cuda:99")
    assert is_one_sentence(result, "REFINE_DEVICE=cuda:99", "REFINE_DEVICE=cpu")


def test_an_unknown_machine_setting_is_named(project: Path) -> None:
    assert is_one_sentence(run_stage(project, "download", REFINE_THREAD="2"), "did you mean REFINE_THREADS?")
