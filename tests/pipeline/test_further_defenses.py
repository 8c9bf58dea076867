"""Further defenses in the pipeline: each is made and measured alone, by the real `dvc` in a real repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from repositories import ok, ran
from support import write_params

STAGES = ["give-data", "train-defense", "evaluate-defense"]


def _of(*names: str) -> list[str]:
    return sorted(f"{stage}@{name}" for name in names for stage in STAGES)


def _edit(project: Path, **changes: object) -> None:
    content = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    write_params(project, {**content, **changes})


@pytest.fixture(scope="module")
def with_shrinkpad(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project with ShrinkPad, run by the command that README gives."""
    project = Path(shutil.copytree(finished, tmp_path_factory.mktemp("further") / "project", symlinks=True))
    shutil.copytree(project / "src/refine/defenses/shrinkpad", project / "src/refine/defenses/other")
    path = project / "src/refine/defenses/other/defense.py"
    path.write_text(path.read_text(encoding="utf-8").replace('"shrinkpad"', '"other"'), encoding="utf-8")
    ok(project, "git", "add", "-A")
    ok(project, "git", "commit", "-qm", "a defense of our own")
    out = ok(project, "dvc", "exp", "run", "-S", "defenses=[shrinkpad]")
    assert "Running stage 'train-refine'" not in out
    return project


@pytest.fixture
def project(with_shrinkpad: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(with_shrinkpad, tmp_path / "project", symlinks=True))


def test_each_system_is_a_row_with_the_same_keys(with_shrinkpad: Path) -> None:
    table = json.loads(ok(with_shrinkpad, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert set(table) == {"metrics/no_defense.json", "metrics/refine.json", "metrics/shrinkpad.json"}
    keys = {path: set(each["data"]) for path, each in table.items()}
    assert len({frozenset(each) for each in keys.values()}) == 1
    shown = ok(with_shrinkpad, "dvc", "metrics", "show").splitlines()[0].split()
    assert sorted(shown) == [
        "Path",
        "asr_floor_clean",
        "attack_success_rate",
        "benign_accuracy",
        "der",
        "robust_accuracy",
    ]


def test_a_difference_names_system_and_metric(project: Path) -> None:
    ok(project, "git", "add", "-A")
    ok(project, "git", "commit", "-qm", "with ShrinkPad")
    _edit(project, defense_settings={"shrinkpad": {"pad": 9}})
    assert sorted(ran(project)) == _of("shrinkpad")
    both = json.loads(ok(project, "dvc", "metrics", "diff", "main", "--json"))
    assert set(both) <= {"metrics/shrinkpad.json"}


def test_another_one_runs_nothing_of_those_that_are_there(project: Path) -> None:
    _edit(project, defenses=["shrinkpad", "other"])
    assert sorted(ran(project)) == _of("other")
    assert json.loads((project / "metrics/other.json").read_text(encoding="utf-8")) == json.loads(
        (project / "metrics/shrinkpad.json").read_text(encoding="utf-8")
    )


def test_an_edit_of_its_file_runs_it_alone(project: Path) -> None:
    _edit(project, defenses=["shrinkpad", "other"])
    ran(project)
    path = project / "src/refine/defenses/other/defense.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    status = json.loads(ok(project, "dvc", "status", "--json"))
    assert sorted(status) == _of("other")


def test_an_edit_of_its_settings_makes_and_measures_it_alone(project: Path) -> None:
    """The others are given their data anew, which writes the same bytes, so that nothing of them is made again."""
    _edit(project, defenses=["shrinkpad", "other"])
    ran(project)
    _edit(project, defense_settings={"other": {"fill": "mean"}})
    assert sorted(ran(project)) == sorted([*_of("other"), "give-data@shrinkpad"])


def test_settings_of_training_data_concern_no_other_stage(project: Path) -> None:
    _edit(project, defense_data={"seed": 5})
    assert set(ran(project)) <= set(_of("shrinkpad"))


def test_without_further_defenses_the_five_stages_are_all(finished: Path) -> None:
    names = [line.split()[0] for line in ok(finished, "dvc", "stage", "list").splitlines()]
    assert names == ["download", "poison-dataset", "train-backdoor", "train-refine", "evaluate"]
