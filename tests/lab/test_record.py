"""Recording the finished run of a real repository."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml

from refine.core.errors import UserError
from refine_lab.recording.record import record, record_all
from refine_lab.runs.record import Defender
from refine_lab.runs.recorded import HOME, read_all
from repositories import ok
from tiny import files_of

NAME = "folder-quick-badnets-refine-default-s1"
STAGES = {"download", "poison-dataset", "train-backdoor", "train-refine", "evaluate"}


def test_a_finished_run_is_recorded(preset: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    models = files_of(preset / "models")
    (folder,) = record_all(preset, preset / HOME, "quick", "default")
    (found,) = read_all(preset / HOME).values()
    assert files_of(preset / "models") == models
    assert found.folder.name == folder.name == NAME
    assert found.record.changes == {}
    assert found.record.commit == ok(preset, "git", "rev-parse", "HEAD").strip()
    assert found.record.poisoned == 10
    assert set(found.record.runtime) == STAGES
    assert found.record.runtime["train-refine"]["device"] == "cpu"
    assert set(found.record.outputs) == {"data/raw/train", "data/raw/test", "models/backdoor", "models/refine"}
    assert found.record.clean is None
    assert "asr_floor_triggered is left out: no run of the attack none" in caplog.text
    assert found.record.defender == Defender(regime="unlabeled", images=48, labels=False, changes_classifier=False)
    retuning = found.record.retuning
    assert retuning is not None
    assert (retuning.images, retuning.poisoned, retuning.clean_run) == (6, 5, None)
    assert list(retuning.defended) == ["all", "transform"]
    assert [len(own.attacked.each) for own in (retuning.no_defense, *retuning.defended.values())] == [5] * 3
    assert caplog.text.count("retuned by 6 images, 5 of them poisoned (83.3 %), ASR: no defense ") == 1
    for system, figures in found.figures.items():
        assert figures == json.loads((preset / f"metrics/{system}.json").read_text(encoding="utf-8"))


def test_a_split_is_recorded_with_the_defense_that_is_given_it(preset: Path) -> None:
    path = preset / "params.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content |= {"splits": ["oracle"], "split_settings": {"oracle": {"alpha_c": 0.3, "alpha_p": 0.2}}}
    brief = {"split": "oracle", "recipe": {"epochs": 1, "batch_size": 8}}
    content |= {"defenses": ["dbr"], "defense_settings": {"dbr": brief}}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    ok(preset, "dvc", "repro", "evaluate-defense@dbr")
    with pytest.raises(UserError, match=r"evaluate-split@oracle out of date"):
        record(preset, preset / HOME, "quick", "default", "dbr")
    ok(preset, "dvc", "repro", "evaluate-split@oracle")
    folder = record(preset, preset / HOME, "quick", "default", "dbr")
    found = read_all(preset / HOME)[folder.name]
    assert found.record.split is not None
    assert (found.record.split["poisoned_precision"], found.record.split["gate"]) == (1.0, "passed")
    assert (folder / "fct.png").is_file()


def test_each_measured_defense_is_recorded_apart(preset: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = preset / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("defenses: []", "defenses: [shrinkpad]"), encoding="utf-8")
    caplog.set_level(logging.INFO)
    assert [each.name for each in record_all(preset, preset / HOME, "quick", "first")] == [
        "folder-quick-badnets-refine-first-s1"
    ]
    assert "shrinkpad is not recorded: run `dvc repro evaluate-defense@shrinkpad` first" in caplog.messages
    ok(preset, "dvc", "repro")
    assert len(record_all(preset, preset / HOME, "quick", "second")) == 2
    runs = read_all(preset / HOME)
    refine, shrinkpad = (runs[f"folder-quick-badnets-{name}-second-s1"] for name in ("refine", "shrinkpad"))
    assert shrinkpad.before == refine.before
    assert shrinkpad.after == json.loads((preset / "metrics/shrinkpad.json").read_text(encoding="utf-8"))
    assert set(refine.record.runtime) == STAGES
    assert set(shrinkpad.record.runtime) >= {"train-backdoor", "give-data@shrinkpad", "evaluate-defense@shrinkpad"}
    assert not {"train-refine", "evaluate"} & shrinkpad.record.runtime.keys()
    assert "models/defenses/shrinkpad" in shrinkpad.record.outputs
    assert (shrinkpad.folder / "gallery.png").is_file()
    assert shrinkpad.record.defender == Defender(regime="none", images=0, labels=False, changes_classifier=False)
    assert shrinkpad.record.retuning is not None
    assert list(shrinkpad.record.retuning.defended) == ["all"]
    assert refine.record.retuning is not None
    assert shrinkpad.record.retuning.no_defense == refine.record.retuning.no_defense


def test_a_recorded_run_without_attack_gives_the_floor_of_the_others(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refine_lab.recording import record as recording

    name_of = recording.name_of
    with monkeypatch.context() as patch:  # the models of this run in the place of clean ones
        patch.setattr(recording, "name_of", lambda *of: name_of(*of).model_copy(update={"attack": "none"}))
        record(preset, preset / HOME, "quick", "default", "refine")
    record(preset, preset / HOME, "quick", "default", "refine")
    runs = read_all(preset / HOME)
    benign, attacked = (runs[f"folder-quick-{attack}-refine-default-s1"] for attack in ("none", "badnets"))
    assert benign.record.clean is None
    assert benign.record.retuning is None
    assert benign.record.defender == attacked.record.defender
    assert attacked.record.clean is not None
    assert attacked.record.clean.run == "folder-quick-none-refine-default-s1"
    for system in attacked.figures:
        assert attacked.figure(system, "asr_floor_triggered") == attacked.figure(system, "attack_success_rate")
        assert attacked.figure(system, "asr_retuned_over_clean") == 0
        retuned = attacked.retuned(system)
        assert retuned is not None
        assert retuned.clean == retuned.attacked
    assert attacked.record.retuning is not None
    assert attacked.record.retuning.clean_run == attacked.record.clean.run
    assert attacked.record.retuning.clean_defended


def test_a_stage_whose_outputs_are_another_run_s_has_no_record_of_its_time(preset: Path) -> None:
    path = preset / "metrics/runtime/train-refine.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["result"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content), encoding="utf-8")
    folder = record(preset, preset / HOME, "quick", "default", "refine")
    runtime = json.loads((folder / "run.json").read_text(encoding="utf-8"))["runtime"]
    assert set(runtime) == STAGES - {"train-refine"}


def test_what_is_out_of_date_is_not_recorded(preset: Path) -> None:
    content = yaml.safe_load((preset / "params.yaml").read_text(encoding="utf-8"))
    content["evaluate"]["batch_size"] = 3
    (preset / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UserError, match="evaluate out of date; run `dvc repro` before a run is recorded"):
        record_all(preset, preset / HOME, "quick", "default")
    assert not (preset / HOME).exists()


def test_where_nothing_was_measured_there_is_nothing_to_record(project: Path) -> None:
    with pytest.raises(UserError, match="there is nothing to record; run `dvc repro` first"):
        record_all(project, project / HOME, "quick", "default")


def test_code_that_is_not_committed_is_not_recorded(preset: Path) -> None:
    with (preset / "presets/quick.yaml").open("a", encoding="utf-8") as file:
        file.write("# a remark\n")
    with pytest.raises(UserError, match="changes that are not committed"):
        record_all(preset, preset / HOME, "quick", "default")


def test_an_unknown_preset_comes_with_the_list(preset: Path) -> None:
    with pytest.raises(UserError, match=r"presets/papr.yaml is no preset, choose from quick"):
        record_all(preset, preset / HOME, "papr", "default")
