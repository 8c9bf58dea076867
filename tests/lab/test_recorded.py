"""Folders of recorded runs: what is written, what is read, and folders that were tampered with."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from recorded_runs import name, record, run
from recorded_runs import write as write_run
from refine.core.errors import UserError
from refine.core.files import write_json
from refine_lab.recording import folder as folders
from refine_lab.runs.recorded import Run, of_experiment, read_all
from support import TINY_PARAMS, write_params


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the outputs of a finished run, with REFINE and with ShrinkPad, which has no map of features."""
    project = tmp_path / "project"
    done = {"no_defense": {"benign_accuracy": 0.9}, "refine": {"benign_accuracy": 0.8}, "shrinkpad": {"der": 0.5}}
    for folder in ("diagnostics", "plots/refine", "plots/shrinkpad"):
        (project / "metrics" / folder).mkdir(parents=True)
    (project / "data/poisoned").mkdir(parents=True)
    write_params(project, TINY_PARAMS)
    for system, figures in done.items():
        write_json(project / f"metrics/{system}.json", figures)
        write_json(project / f"metrics/diagnostics/{system}.json", {"of": system})
    for picture in ("data/poisoned/preview", "metrics/plots/refine/gallery", "metrics/plots/refine/features"):
        Image.new("RGB", (8, 8), "red").save(project / f"{picture}.png")
    Image.new("RGB", (8, 8), "blue").save(project / "metrics/plots/shrinkpad/gallery.png")
    monkeypatch.setattr(folders, "figures_without_defense", lambda _project: done["no_defense"])
    return project


def _written(project: Path, home: Path, defense: str) -> Run:
    folders.write(project, home, record(name(defense=defense)))
    (found,) = read_all(home).values()
    return found


def test_what_was_written_is_read(project: Path, tmp_path: Path) -> None:
    found = _written(project, tmp_path / "runs", "refine")
    assert found.record == record(name())
    assert found.figures == {"no_defense": {"benign_accuracy": 0.9}, "refine": {"benign_accuracy": 0.8}}
    assert found.diagnostics == {"of": "refine"}
    assert found.params == TINY_PARAMS
    assert {path.name for path in found.folder.iterdir()} == {
        *("diagnostics.json", "no_defense.json", "params.yaml", "refine.json", "run.json"),
        *("features.png", "gallery.png", "preview.png"),
    }


def test_a_run_with_another_defense_has_its_own_figures_and_pictures(project: Path, tmp_path: Path) -> None:
    found = _written(project, tmp_path / "runs", "shrinkpad")
    assert found.folder.name == "folder-quick-badnets-shrinkpad-default-s1"
    assert found.after == {"der": 0.5}
    assert found.diagnostics == {"of": "shrinkpad"}
    with Image.open(found.folder / "gallery.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (0, 0, 255)
    assert not (found.folder / "features.png").exists()


def test_runs_of_an_experiment_are_those_with_its_defense_and_parameters(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, run(name(seed=seed)))
    write_run(tmp_path, run(name(defense="shrinkpad")))
    write_run(tmp_path, run(name(variant="wide")), train_refine={"transform": {"name": "unet", "first_channels": 16}})
    recorded = read_all(tmp_path).values()
    for defense, seeds in (("refine", [1, 2]), ("shrinkpad", [1])):
        found = of_experiment(recorded, TINY_PARAMS, defense)
        assert [each.record.name.seed for each in found] == seeds
        assert {each.defense for each in found} == {defense}


def test_no_runs_are_no_error(tmp_path: Path) -> None:
    assert read_all(tmp_path / "runs") == {}


def test_a_run_that_is_being_written_is_none_yet(tmp_path: Path) -> None:
    write_run(tmp_path, run())
    (tmp_path / ".folder-quick-badnets-refine-default-s2.partial").mkdir()
    assert list(read_all(tmp_path)) == [str(name())]


def test_a_folder_with_another_name_than_its_run_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, run()).rename(tmp_path / str(name(seed=2)))
    with pytest.raises(UserError, match="s2 holds the run folder-quick-badnets-refine-default-s1"):
        read_all(tmp_path)


@pytest.mark.parametrize("file", ["run.json", "no_defense.json", "refine.json", "diagnostics.json"])
def test_a_damaged_file_is_named_with_a_remedy(tmp_path: Path, file: str) -> None:
    (write_run(tmp_path, run()) / file).write_text('{"name": ', encoding="utf-8")
    with pytest.raises(UserError, match=rf"{file} is not valid JSON .*; restore it by `git checkout"):
        read_all(tmp_path)


def test_a_record_of_another_form_is_refused(tmp_path: Path) -> None:
    (write_run(tmp_path, run()) / "run.json").write_text('{"name": 1}', encoding="utf-8")
    with pytest.raises(UserError, match=r"run.json cannot be used .*; restore it by `git checkout"):
        read_all(tmp_path)
