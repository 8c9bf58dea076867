"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from browsers import browser  # noqa: F401 (a fixture)
from forks import share
from repositories import finished_in, ok
from support import tiny_project

LONGEST = (
    "test_mutants.py",
    "test_interruption.py",
    "test_processes.py",
    "test_cache.py",
    "test_further_defenses.py",
    "test_every_attack.py",
    "test_launch.py",
    "test_compute.py",
)

torch.set_num_threads(1)  # also for fixtures of modules, which are made before those of functions
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """All workers have one server of forks, which starts before they do."""
    if config.getoption("numprocesses", None):
        share()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that no worker waits for another one in the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def _one_thread_and_no_machine_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the machine's default settings, whatever the person who runs them has set."""
    torch.set_num_threads(1)
    for name in list(os.environ):
        if name.startswith("REFINE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with a data set of 72 own images."""
    return tiny_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the finished run of the tiny project, which no test may change."""
    return finished_in(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def repo(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "repo", symlinks=True))


@pytest.fixture
def preset(repo: Path) -> Path:
    """A finished repository whose parameters are its preset `quick`."""
    (repo / "presets").mkdir()
    shutil.copy(repo / "params.yaml", repo / "presets/quick.yaml")
    ok(repo, "git", "add", "-A")
    ok(repo, "git", "commit", "-qm", "a preset")
    return repo


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The mirror of real data sets that `REFINE_MIRROR` names; the test is skipped where it is not set."""
    mirror = MIRROR
    if mirror is None or not Path(mirror).is_dir():
        pytest.skip("needs the real data sets: set REFINE_MIRROR to a folder that holds them")
    return Path(mirror).resolve()


MIRROR = os.environ.get("REFINE_MIRROR")
