"""The content of a recorded run's `run.json`: where its figures come from."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from refine_lab.runs.name import Name


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OnTriggered(_Strict):
    """Answers of a clean system to an attack's triggered images.

    Attributes:
        asr_floor_triggered: share answered as the attacker wants, without any backdoor.
        robust_accuracy: share answered with the true class.
        misread: the most frequent other answers, as in the diagnostics.
    """

    asr_floor_triggered: float
    robust_accuracy: float
    misread: list[dict[str, str | float]]


class Clean(_Strict):
    """Both systems of a run without attack, on the triggered images of a run with one.

    Attributes:
        run: its name.
        no_defense: its classifier.
        defended: its defended classifier; None where the defense is another one, or was trained by another recipe.
    """

    run: str
    no_defense: OnTriggered
    defended: OnTriggered | None


class Record(_Strict):
    """Content of `run.json`.

    Attributes:
        name: of the run.
        changes: parameters that differ from the preset, by their dotted names.
        machine: settings of the machine that a list of runs asked for, by the names of their variables.
        commit: of the code.
        poisoned: number of training images that carry the trigger and the label that the attacker gave them.
        cover: number of those that carry it, or a part of it, and keep their label.
        rate_of_dataset: poisoned share of the training set.
        rate_of_classes: poisoned share of the classes that poisoned images come from; None without any.
        runtime: for each stage the record of the computation that its output comes from; none where another project
            computed it. Runs that share an attack share its record.
        outputs: DVC's hashes of data and models by their paths; runs recorded by an early version have none.
        clean: the same data, network, recipe and seed without attack, on the triggered images of this run; None where
            no such run was recorded.
    """

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
