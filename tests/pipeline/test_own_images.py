"""What the real `dvc` sees of links in `data/own/images`: through those to files, and not through those to folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from repositories import ok, ran
from support import environment, is_one_sentence, run, tiny_project
from tiny import files_of

CLASS = "data/own/images/train/class-0"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The tiny project under DVC, before any stage has run."""
    project = tiny_project(tmp_path / "project")
    ok(project, "git", "init", "-q")
    ok(project, "dvc", "init", "-q")
    return project


def test_an_image_behind_a_link_is_part_of_the_experiment(repo: Path, tmp_path: Path) -> None:
    link, image = repo / CLASS / "000.png", tmp_path / "elsewhere.png"
    link.rename(image)
    link.symlink_to(image)
    assert ran(repo, "download") == ["download"]
    before = files_of(repo / "data/raw")
    assert ran(repo, "download") == []
    shutil.copy(repo / CLASS / "003.png", image)
    assert "data/own/images" in ok(repo, "dvc", "status", "download")
    assert ran(repo, "download") == ["download"]
    assert files_of(repo / "data/raw") != before


def test_a_class_behind_a_link_is_refused_since_dvc_would_miss_its_changes(repo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    (repo / CLASS).rename(folder)
    (repo / CLASS).symlink_to(folder)
    result = run(repo, "dvc", "repro", "download", env=environment())
    assert is_one_sentence(result, f"{CLASS} is a link to a folder", "copy the folder there"), result.stderr
    assert not (repo / "data/raw").exists()
