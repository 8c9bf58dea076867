"""Recorded runs: folders that git tracks, one for each defense of a finished run.

metrics/runs/DATASET-PRESET-ATTACK-DEFENSE-VARIANT-sSEED/
    params.yaml         of the run
    no_defense.json     figures of the classifier as it is
    DEFENSE.json        figures of the defended classifier
    diagnostics.json    further figures of both
    run.json            what differs from the preset, the commit, and the runtime record of each stage
    preview.png         what the attack does to images
    gallery.png         what is answered to images, and what a defense that transforms them makes of them
    fct.png             of a defense that is given a split of the training set, what that is made by
    features.png        what the classifier makes of them, before and after such a defense
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import read_json
from refine_lab.runs.parameters import read_params, same_experiment
from refine_lab.runs.record import OnTriggered, Record, Retuned
from refine_lab.systems import BARE

HOME = Path("metrics/runs")
RECORD = "run.json"
DIAGNOSTICS = "diagnostics.json"
_RETUNED = {
    "asr_retuned": "attack_success_rate",
    "ba_retuned": "benign_accuracy",
    "robust_retuned": "robust_accuracy",
}
_OVER_CLEAN = "asr_retuned_over_clean"


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Attributes:
        folder: where it lies.
        record: content of `run.json`.
        figures: content of the metrics file of each system, by its name: without defense, then defended.
        diagnostics: content of `diagnostics.json`.
    """

    folder: Path
    record: Record
    figures: dict[str, dict[str, Any]]
    diagnostics: dict[str, Any]

    @property
    def defense(self) -> str:
        """Its name."""
        return self.record.name.defense

    @property
    def before(self) -> dict[str, Any]:
        """Figures of the classifier as it is."""
        return self.figures[BARE]

    @property
    def after(self) -> dict[str, Any]:
        """Figures of the defended classifier."""
        return self.figures[self.defense]

    @cached_property
    def params(self) -> dict[str, Any]:
        """Content of `params.yaml`."""
        return read_params(self.folder / "params.yaml")

    def output(self, path: Path) -> str | None:
        """DVC's hash of what lay there, data or a model; None where unknown, as in runs of an early version."""
        return self.record.outputs.get(path.as_posix())

    def shares(self, outputs: dict[str, str], paths: Iterable[Path]) -> bool:
        """Whether what lay in all of these places is that of another run, with such `outputs`."""
        return all(self.output(path) == outputs[path.as_posix()] for path in paths)

    def figure(self, system: str, name: str) -> float | None:
        """A figure of one system; None where unknown.

        Args:
            system: of the run.
            name: as in the metrics file; `asr_floor_triggered`; or, after everything was retuned, `asr_retuned`,
                `ba_retuned`, `robust_retuned`, and `asr_retuned_over_clean`, which is how much the success rate is
                above that of a clean system.
        """
        if name == "asr_floor_triggered":
            answers = self._clean(system)
            return answers.asr_floor_triggered if answers else None
        if name in _RETUNED or name == _OVER_CLEAN:
            retuned = self.retuned(system)
            if retuned is None:
                return None
            mean: dict[str, float] = retuned.attacked.mean.model_dump()
            return retuned.asr_over_clean if name == _OVER_CLEAN else mean[_RETUNED[name]]
        value: float | None = self.figures[system].get(name)
        return value

    def retuned(self, system: str, variant: str = "all") -> Retuned | None:
        """A system after it was retuned; None where unknown."""
        retuning = self.record.retuning
        if retuning is None:
            return None
        if system == BARE:
            return retuning.no_defense
        return retuning.defended.get(variant)

    def _clean(self, system: str) -> OnTriggered | None:
        clean = self.record.clean
        if clean is None:
            return None
        return clean.no_defense if system == BARE else clean.defended


def read_all(home: Path) -> dict[str, Run]:
    """All recorded runs by their names.

    Raises:
        UserError: a folder is damaged, or holds another run than its name says.
    """
    folders = sorted(path for path in home.glob("[!.]*") if path.is_dir())  # a dot: one that is being written
    return {folder.name: read(folder) for folder in folders}


def of_experiment(runs: Iterable[Run], params: dict[str, Any], defense: str) -> list[Run]:
    """The runs with this defense and these parameters, a whole file, but for their seed."""
    return [each for each in runs if each.defense == defense and same_experiment(each.params, params, defense)]


def read(folder: Path) -> Run:
    """A recorded run.

    Raises:
        UserError: it is damaged, or another run than its name says.
    """
    remedy = f"restore it by `git checkout {folder}`, or remove the folder and record the run again"
    record = read_document(folder / RECORD, Record, remedy)
    if str(record.name) != folder.name:
        raise UserError(f"{folder} holds the run {record.name}; {remedy}")
    figures = {system: read_json(folder / f"{system}.json", remedy) for system in (BARE, record.name.defense)}
    return Run(folder, record, figures, read_json(folder / DIAGNOSTICS, remedy))
