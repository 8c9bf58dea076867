"""Recording the finished run of a real repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from refine.core.errors import UserError
from refine.reports.record import record
from refine.reports.run import HOME, read_all
from refine.reports.run import name_of as run_name
from repositories import ok
from support import environment, is_one_sentence, run

NAME = "folder-quick-badnets-default-s1"


def test_a_finished_run_is_recorded_by_the_command(preset: Path) -> None:
    env = environment(PYTHONPATH="src")
    result = run(preset, "python", "-m", "refine.reports.record", "quick", env=env)
    assert result.returncode == 0, result.stderr
    (found,) = read_all(preset / HOME).values()
    assert found.folder.name == result.stdout.strip().rpartition("/")[2] == NAME
    assert found.facts.changes == {}
    assert found.facts.commit == ok(preset, "git", "rev-parse", "HEAD").strip()
    assert found.facts.poisoned == 10
    assert set(found.facts.runtime) == {"download", "poison-dataset", "train-backdoor", "train-refine", "evaluate"}
    assert found.facts.runtime["train-refine"]["device"] == "cpu"
    assert set(found.facts.outputs) == {"data/raw/train", "data/raw/test", "models/backdoor", "models/refine"}
    assert found.facts.clean is None
    assert "asr_floor_triggered is left out: no run of the attack none" in result.stderr
    assert found.figures == json.loads((preset / "metrics/evaluate.json").read_text(encoding="utf-8"))


def test_a_recorded_run_without_attack_gives_the_floor_of_the_others(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = run_name(yaml.safe_load((preset / "params.yaml").read_text(encoding="utf-8")), "quick", "default")
    with monkeypatch.context() as patch:  # the models of this run in the place of clean ones
        patch.setattr("refine.reports.run.name_of", lambda *_: name.model_copy(update={"attack": "none"}))
        record(preset, preset / HOME, "quick", "default")
    record(preset, preset / HOME, "quick", "default")
    runs = read_all(preset / HOME)
    benign, attacked = (runs[f"folder-quick-{attack}-default-s1"] for attack in ("none", "badnets"))
    assert benign.facts.clean is None
    assert attacked.facts.clean is not None
    assert attacked.facts.clean.run == "folder-quick-none-default-s1"
    asr = attacked.figures["no_defense"]["attack_success_rate"]
    assert attacked.facts.clean.no_defense.asr_floor_triggered == asr


def test_a_stage_whose_outputs_are_another_run_s_has_no_record_of_its_time(preset: Path) -> None:
    path = preset / "metrics/runtime/train-refine.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["result"]["sha256"] = "0" * 64
    path.write_text(json.dumps(told), encoding="utf-8")
    folder = record(preset, preset / HOME, "quick", "default")
    runtime = json.loads((folder / "run.json").read_text(encoding="utf-8"))["runtime"]
    assert "train-refine" not in runtime
    assert "train-backdoor" in runtime


def test_what_is_out_of_date_is_not_recorded(preset: Path) -> None:
    content = yaml.safe_load((preset / "params.yaml").read_text(encoding="utf-8"))
    content["evaluate"]["batch_size"] = 3
    (preset / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    result = run(preset, "python", "-m", "refine.reports.record", "quick", env=environment(PYTHONPATH="src"))
    assert is_one_sentence(result, "evaluate out of date", "dvc repro")
    assert not (preset / HOME).exists()


def test_code_that_is_not_committed_is_not_recorded(preset: Path) -> None:
    with (preset / "presets/quick.yaml").open("a", encoding="utf-8") as file:
        file.write("# a remark\n")
    with pytest.raises(UserError, match="changes that are not committed"):
        record(preset, preset / HOME, "quick", "default")


def test_an_unknown_preset_comes_with_the_list(preset: Path) -> None:
    with pytest.raises(UserError, match=r"presets/papr.yaml is no preset, choose from quick"):
        record(preset, preset / HOME, "papr", "default")
