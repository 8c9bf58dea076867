"""What a stress test found, as JSON for programs and for the report."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from refine.core.bounds import Label
from refine.core.strict import Strict
from refine.models.card import Sha256

NOTE = (
    "No certificate: it shows what the defense does to backdoors that were planted for this test by fine-tuning, and "
    "not what it does to one that an attacker may have built in otherwise."
)

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class Rate(Strict):
    """Attributes:
    share: of the images that something holds for.
    interval_95: its 95 % interval (Wilson), low and high.
    images: how many were looked at.
    """

    share: Share
    interval_95: Annotated[list[Share], Field(min_length=2, max_length=2)]
    images: Annotated[int, Field(ge=1)]


class Measured(Strict):
    """What a system (the model, a copy with a plant, or that copy defended) answers to the images for measuring.

    Attributes:
        attack_success_rate: images with the trigger that are taken for the target, of those that the model takes for
            another class without it. Of the model itself, this is the floor: what the trigger does without a backdoor.
        target_without_trigger: the same images without the trigger that are taken for the target.
        agreement: clean images that are answered as the model answers them.
        robust_agreement: images with the trigger that are answered as the model answers them without it.
        benign_accuracy: clean images that are answered as their label says; None without labels.
    """

    attack_success_rate: Rate
    target_without_trigger: Rate
    agreement: Rate
    robust_agreement: Rate
    benign_accuracy: Rate | None = None


class Spent(Strict):
    """Seconds of each step."""

    planting: Seconds
    defending: Seconds = 0.0
    measuring: Seconds

    @property
    def total(self) -> float:
        """Seconds of all steps."""
        return self.planting + self.defending + self.measuring


class Plant(Strict):
    """One backdoor that was planted into a copy of the model.

    Attributes:
        name: of the plant.
        attack: of the project.
        settings: of the attack, with the target.
        seed: of its pattern and its training.
        target: name of the class that the trigger leads to.
        poisoned: images with the trigger and the attacker's label that the copy was fine-tuned on.
        learning_rates: that planting was tried at; the last one is that of the copy.
        took: whether the backdoor works, not with the model itself, and nothing else has changed much; one that did
            not take counts neither way.
        model: the model itself, the floor.
        before: the copy.
        after: the copy after it was defended; None where the plant did not take.
        seconds: of this plant.
    """

    name: str
    attack: str
    settings: dict[str, Any]
    seed: int
    target: str
    target_label: Label
    poisoned: Count
    learning_rates: list[float]
    took: bool
    model: Measured
    before: Measured
    after: Measured | None = None
    seconds: Spent


class Images(Strict):
    """How many images each part has, and the SHA-256 over all images in their order."""

    planting: Count
    defending: Count
    measuring: Count
    sha256: Sha256


class StressResult(Strict):
    """Content of the result's file.

    Attributes:
        model_sha256: of the model's weights.
        images: that were used.
        labeled: whether labels of the images were used, for the benign accuracy alone.
        defense: name of the defense.
        defense_settings: all of them.
        settings: all of the stress test.
        plants: in the order of the settings.
        worst: name of the plant with the highest success rate after the defense; None where none took.
        seconds: of everything.
        defense_multiple: these seconds, as a multiple of those that the defense of one copy took; None where none took.
        note: what the result does not say.
    """

    format_version: Literal[1] = 1
    model_sha256: Sha256
    images: Images
    labeled: bool
    defense: str
    defense_settings: dict[str, Any]
    settings: dict[str, Any]
    plants: list[Plant]
    worst: str | None
    seconds: Seconds
    defense_multiple: float | None
    note: str = NOTE

    @property
    def took(self) -> list[Plant]:
        """The plants that count."""
        return [plant for plant in self.plants if plant.took]
