"""A run that is done, in a folder of its own that git tracks: parameters, figures, how it was computed, pictures.

metrics/runs/DATASET-PRESET-ATTACK-VARIANT-sSEED/
    params.yaml     of the run
    evaluate.json   its figures
    run.json        what differs from the preset, the commit, and the runtime record of each stage
    preview.png     what the attack does to images
    gallery.png     what the defense makes of them
    features.png    what the classifier makes of them, before and after
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from refine.core.errors import UserError
from refine.core.files import new_folder, read_json, write_json
from refine.core.params import ParamsFile

HOME = Path("metrics/runs")
_WORD = r"[a-z0-9_.]+"
SEEDED = ("poison_dataset", "train_backdoor", "train_refine")
SYSTEMS = {"no_defense": "no defense", "refine": "REFINE"}
PICTURES = ("data/poisoned/preview.png", "metrics/plots/gallery.png", "metrics/plots/features.png")
_ABSENT = object()
TOLD_BY_THE_NAME = {"poison_dataset.attack.name", *(f"{section}.seed" for section in SEEDED)}


class Name(BaseModel):
    """What a run is called by; printed as the name of its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    dataset: Annotated[str, Field(pattern=f"^{_WORD}$")]
    preset: Annotated[str, Field(pattern=f"^{_WORD}$")]
    attack: Annotated[str, Field(pattern=f"^{_WORD}$")]
    variant: Annotated[str, Field(pattern=f"^{_WORD}$")] = "default"
    seed: Annotated[int, Field(ge=0)]

    def __str__(self) -> str:
        return f"{self.dataset}-{self.preset}-{self.attack}-{self.variant}-s{self.seed}"


class OnTriggered(BaseModel):
    """What a clean system answers to an attack's triggered images.

    Attributes:
        asr_floor_triggered: share that it answers as the attacker wants, without any backdoor.
        robust_accuracy: share that it answers rightly.
        misread: what it takes others for, as in `evaluate.json`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    asr_floor_triggered: float
    robust_accuracy: float
    misread: list[dict[str, str | float]]


class Clean(BaseModel):
    """Both systems of a run without attack.

    Attributes:
        run: its name.
        no_defense: its classifier.
        refine: its defense; None where it was trained by another recipe than the one beside it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    run: str
    no_defense: OnTriggered
    refine: OnTriggered | None


class Facts(BaseModel):
    """Content of `run.json`.

    Attributes:
        name: of the run.
        changes: parameters that differ from the preset, by their dotted names.
        machine: settings of the machine that a list asked for, by the names of their variables.
        commit: of the code.
        poisoned: how many training images carry the trigger and a wish of the attacker's.
        cover: how many carry it, or a part of it, and keep their label.
        rate_of_dataset: poisoned share of the training set.
        rate_of_classes: poisoned share of the classes that poisoned images come from; None without any.
        runtime: for each stage the record of the computation that its output comes from; none where another project
            computed it. Rows of a list that share an attack share its record.
        outputs: DVC's hashes of data and models by their paths; runs recorded by an earlier version have none.
        clean: the same data, network, recipe and seed without attack, on the triggered images of this run; None where
            no such run was recorded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: Name
    changes: dict[str, Any]
    machine: dict[str, int | str] = Field(default={})
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    poisoned: int
    cover: int
    rate_of_dataset: float
    rate_of_classes: float | None
    runtime: dict[str, dict[str, Any]]
    outputs: dict[str, str] = Field(default={})
    clean: Clean | None = None


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Attributes:
        folder: where it lies.
        facts: of `run.json`.
        figures: of `evaluate.json`.
    """

    folder: Path
    facts: Facts
    figures: dict[str, Any]

    def figure(self, system: str, name: str) -> float | None:
        """A figure of one system by its name in `evaluate.json`, or `asr_floor_triggered`; None where it is not known.

        Args:
            system: a name of `SYSTEMS`.
        """
        if name == "asr_floor_triggered":
            told: OnTriggered | None = getattr(self.facts.clean, system, None)
            return told.asr_floor_triggered if told else None
        value: float | None = self.figures[system].get(name)
        return value


def name_of(params: dict[str, Any], preset: str, variant: str) -> Name:
    """The name of a run with these parameters, a whole parameters file.

    Raises:
        UserError: its stages have different seeds, or a part of the name is no plain word.
    """
    seeds = {section: params[section]["seed"] for section in SEEDED}
    if len(set(seeds.values())) > 1:
        raise UserError(f"a recorded run has one seed, not {seeds}; give all three sections the same")
    dataset, attack = params["download"]["source"], params["poison_dataset"]["attack"]["name"]
    try:
        return Name(dataset=dataset, preset=preset, attack=attack, variant=variant, seed=seeds["train_refine"])
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise UserError(
            f"{wrong['input']!r} cannot be part of a run's name; use small letters, digits, '_' and '.'"
        ) from None


def changes(preset: dict[str, Any], params: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Parameters that differ, by their dotted names; None for those that only the preset has."""
    found: dict[str, Any] = {}
    for key in sorted(preset.keys() | params.keys()):
        name, before, after = f"{above}{key}", preset.get(key, _ABSENT), params.get(key, _ABSENT)
        if before == after:
            continue
        there = [each for each in (before, after) if each is not _ABSENT]
        if all(isinstance(each, dict) for each in there) and any(there):
            found |= changes(preset.get(key, {}), params.get(key, {}), f"{name}.")
        else:
            found[name] = None if after is _ABSENT else after
    return found


def write(project: Path, home: Path, facts: Facts) -> Path:
    """Copies what a finished run left in a project into its folder below `home`, which is returned."""
    folder = home / str(facts.name)
    with new_folder(folder) as part:
        shutil.copy(project / "params.yaml", part)
        shutil.copy(project / "metrics/evaluate.json", part)
        for picture in PICTURES:
            with Image.open(project / picture) as drawn:
                drawn.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
                    part / Path(picture).name, optimize=True
                )
        write_json(part / "run.json", facts.model_dump())
    return folder


def read_all(home: Path) -> dict[str, Run]:
    """All recorded runs by their names.

    Raises:
        UserError: a folder is damaged, or holds another run than its name says.
    """
    runs = {}
    for folder in sorted(path for path in home.glob("[!.]*") if path.is_dir()):  # a dot: one that is being written
        remedy = f"restore it by `git checkout {folder}`, or remove the folder and record the run again"
        try:
            facts = Facts.model_validate(read_json(folder / "run.json", remedy))
        except ValidationError as error:
            raise UserError(f"{folder}/run.json is damaged ({error.errors()[0]['msg']}); {remedy}") from None
        if str(facts.name) != folder.name:
            raise UserError(f"{folder} holds the run {facts.name}; {remedy}")
        runs[folder.name] = Run(folder, facts, read_json(folder / "evaluate.json", remedy))
    return runs


def of_experiment(runs: dict[str, Run], params: dict[str, Any]) -> list[Run]:
    """The runs among them that have these parameters, a whole file, but for their seed."""
    wanted = _experiment(params)
    return [each for each in runs.values() if _experiment(whole(each.folder / "params.yaml")) == wanted]


def effective(params: dict[str, Any]) -> dict[str, Any]:
    """What a run depends on of a whole parameters file: settings of sources and attacks not chosen are left out."""
    chosen = {"sources": params["download"]["source"], "attacks": params["poison_dataset"]["attack"]["name"]}
    return {name: section.get(chosen[name]) if name in chosen else section for name, section in params.items()}


def _experiment(params: dict[str, Any]) -> dict[str, Any]:
    content = effective(params)
    for section in SEEDED:
        content[section] = {**content[section], "seed": None}
    return content


def whole(path: Path) -> dict[str, Any]:
    """All sections of a parameters file, by the rules that the stages read it by."""
    return dict(ParamsFile(path).content)
