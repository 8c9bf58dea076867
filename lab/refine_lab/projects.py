"""A checkout with a finished run: where its stages write, and what git and DVC say of it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

from refine.core.errors import UserError
from refine.defending.params import STAGE_OF_ITS_OWN
from refine_lab.systems import BARE

PARAMS = Path("params.yaml")
ATTACK = Path("data/poisoned/attack/attack.json")
PREVIEW = Path("data/poisoned/preview.png")
CLASSIFIER = Path("models/backdoor")
CLASSIFIER_STAGE = "train-backdoor"
DATA_STAGE = "download"
SPLITTING = "split-samples@"
RAW = (Path("data/raw/train"), Path("data/raw/test"))
POISONED = Path("data/poisoned/train")
DEFENDER = Path("data/poisoned/defender")
OTHERS = Path("data/other")
TRIGGERED = Path("data/poisoned/test")
METRICS = Path("metrics")
RUNTIME = METRICS / "runtime"
CODE = ("src", "stages", "dvc.yaml", "presets")


@dataclass(frozen=True)
class SplitStages:
    """The stages of a split of the training set, and their outputs.

    Attributes:
        split: its name.
    """

    split: str

    @property
    def evaluation(self) -> str:
        """The stage that compares it with the truth."""
        return f"evaluate-split@{self.split}"

    @property
    def metrics(self) -> Path:
        """What came of that."""
        return METRICS / "splits" / f"{self.split}.json"

    @property
    def groups(self) -> Path:
        """Folder of the split."""
        return Path("data/split") / self.split

    @property
    def picture(self) -> Path:
        """The histogram that it is made by."""
        return METRICS / "plots/splits" / self.split / "fct.png"


@dataclass(frozen=True)
class Stages:
    """The stages of a defense, and their outputs.

    Attributes:
        defense: its name.
    """

    defense: str

    @property
    def training(self) -> str:
        """The stage that makes the defense."""
        return "train-refine" if self.defense == STAGE_OF_ITS_OWN else f"train-defense@{self.defense}"

    @property
    def evaluation(self) -> str:
        """The stage that measures it, the last one of a run."""
        return "evaluate" if self.defense == STAGE_OF_ITS_OWN else f"evaluate-defense@{self.defense}"

    @property
    def model(self) -> Path:
        """Folder of the defense."""
        return Path("models/refine" if self.defense == STAGE_OF_ITS_OWN else f"models/defenses/{self.defense}")

    @property
    def given(self) -> Path:
        """Folder of what its defender is given; REFINE's stage reads `DEFENDER` and the parameters instead."""
        return Path("data/given") / self.defense

    @property
    def metrics(self) -> Path:
        """Figures of the defended classifier."""
        return METRICS / f"{self.defense}.json"

    @property
    def diagnostics(self) -> Path:
        """Further figures, also of the classifier without defense."""
        return METRICS / "diagnostics" / f"{self.defense}.json"

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Pictures that the evaluation draws; of a defense that transforms no images, one or both are not there."""
        folder = METRICS / "plots" / self.defense
        return folder / "gallery.png", folder / "features.png"


BARE_METRICS = METRICS / f"{BARE}.json"
"""Figures of the classifier without defense; the stage evaluate writes them."""


def preset_file(name: str) -> Path:
    """Where a preset lies, relative to the project."""
    return Path("presets") / f"{name}.yaml"


def out_of_date(project: Path, stage: str) -> list[str]:
    """Stages among one and all before it that are not up to date."""
    with Repo(str(project)) as repo:
        return sorted(_name(each) for each in repo.status(targets=[_target(project, stage)], with_deps=True))


def upstream(project: Path, stage: str) -> set[str]:
    """The names of a stage and of all before it."""
    with Repo(str(project)) as repo:
        return {_name(each.addressing) for each in repo.stage.collect(_target(project, stage), with_deps=True)}


def hashes(project: Path, outputs: tuple[Path, ...]) -> dict[str, str]:
    """DVC's hashes of outputs, by their paths."""
    with Repo(str(project)) as repo:
        found = {out.def_path: str(out.hash_info.value) for out in repo.index.outs}
    return {path.as_posix(): found[path.as_posix()] for path in outputs}


def object_in(cache: Path, md5: str) -> Path:
    """Where a cache of DVC keeps the content with this hash."""
    return cache / "files/md5" / md5[:2] / md5[2:]


def git(project: Path, *words: str) -> str:
    """The output of a git command in a project.

    Raises:
        UserError: it fails.
    """
    result = subprocess.run(  # noqa: S603
        ["git", *words],  # noqa: S607
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise UserError(f"`git {' '.join(words)}` failed in {project}: {result.stderr}")
    return result.stdout.strip()


def commit_of(project: Path) -> str:
    """The hash of the last commit, which holds the code as it is.

    Raises:
        UserError: the code has changes that are not committed.
    """
    if git(project, "status", "--porcelain", "--", *CODE):
        raise UserError(f"{', '.join(CODE)} hold changes that are not committed; commit them, so that a run has a code")
    return git(project, "rev-parse", "HEAD")


def _target(project: Path, stage: str) -> str:
    """A stage of a project that need not be the current folder, as DVC takes it."""
    return f"{project.resolve() / 'dvc.yaml'}:{stage}"


def _name(address: str) -> str:
    """A stage without the file that it stands in, which DVC names where that is not in the current folder."""
    return address.rpartition(":")[2]
