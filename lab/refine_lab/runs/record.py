"""The content of a recorded run's `run.json`: where its figures come from."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from refine.core.strict import Strict
from refine_lab.runs.name import Name


class OnTriggered(Strict):
    """Answers of a clean system to an attack's triggered images.

    Attributes:
        asr_floor_triggered: share answered as the attacker wants, without any backdoor.
        robust_accuracy: share answered with the true class.
        misread: the most frequent other answers, as in the diagnostics.
    """

    asr_floor_triggered: float
    robust_accuracy: float
    misread: list[dict[str, str | float]]


class Clean(Strict):
    """Both systems of a run without attack, on the triggered images of a run with one.

    Attributes:
        run: its name.
        no_defense: its classifier.
        defended: its defended classifier; None where the defense is another one, or was trained by another recipe.
    """

    run: str
    no_defense: OnTriggered
    defended: OnTriggered | None


class Defender(Strict):
    """What a defender had and did.

    Attributes:
        regime: what there is beside the classifier, see `refine.defending.protocol.defense.Regime`.
        images: how many training images.
        labels: whether they came with labels.
        changes_classifier: whether weights of the classifier were changed.
    """

    regime: str
    images: int
    labels: bool
    changes_classifier: bool


class Shares(Strict):
    """Figures of a system after it was retuned, as in its metrics file."""

    benign_accuracy: float
    attack_success_rate: float
    robust_accuracy: float


class AfterRetuning(Strict):
    """A system after an attacker retuned it: `each` for the images of each draw, and the `mean` of all draws."""

    mean: Shares
    each: list[Shares]


class Retuned(Strict):
    """A system of a run and that of a clean classifier, retuned by the same images.

    Attributes:
        attacked: of the run.
        clean: of the run without attack; None where no such run was recorded.
    """

    attacked: AfterRetuning
    clean: AfterRetuning | None

    @property
    def asr_over_clean(self) -> float | None:
        """By how much more often the retuned system is attacked with success than the clean one."""
        if self.clean is None:
            return None
        return self.attacked.mean.attack_success_rate - self.clean.mean.attack_success_rate


class Retuning(Strict):
    """The systems of a run after the retuning attack, see `refine.retuning.attack`.

    Attributes:
        settings: of the attack.
        images: that the attacker has in a draw.
        poisoned: how many of them are poisoned.
        clean_run: name of the run without attack that is retuned beside; None where there is none.
        clean_defended: whether its defense is the same one; else its bare classifier stands beside the defense too.
        no_defense: the bare classifier.
        defended: the defended classifier, by the name of what an attacker trains, `all` of it among them.
    """

    settings: dict[str, Any]
    images: int
    poisoned: int
    clean_run: str | None
    clean_defended: bool
    no_defense: Retuned
    defended: dict[str, Retuned]


class Record(Strict):
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
        clean: the same data, network and recipe without attack, by the same seed where there is one, on the triggered
            images of this run; None where no such run was recorded.
        retuning: its systems after an attacker trained them further; None without attack, or where that was not
            asked for.
        defender: what its defender had; as the two before, None in runs recorded by an early version.
        split: how good the split of the training set is that the defense was given; None where it needs none, and in
            runs recorded by an early version.
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
    retuning: Retuning | None = None
    defender: Defender | None = None
    split: dict[str, Any] | None = None
