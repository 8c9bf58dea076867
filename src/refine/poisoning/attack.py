"""What an attack is. Each file of `refine.attacks` defines `Params` and a class `Attack` derived from the one here.

An attack is a pure function of its settings and its tensors. Choosing, relabeling, writing, previews, saving
and applying again are done once for all attacks, in this room. Nothing here imports torch when it is loaded, so
that parameters are checked without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from refine.backdoor.attacker_augmentation import AttackerAugmentation
from refine.core.bounds import Label
from refine.core.errors import UserError
from refine.core.machine import DEFAULTS, Machine
from refine.core.params import Section, Share

if TYPE_CHECKING:
    from torch import Generator, Tensor

Candidates = Literal["every class", "other classes", "the target class"]


class TargetedParams(Section):
    """Settings of attacks that relabel to one class; those that choose from fewer images say so of `rate`.

    Attributes:
        rate: poisoned share of the whole training set.
        target: the class that the trigger leads to.
    """

    rate: Annotated[Share, Field(gt=0)] = 0.1
    target: Label = 0


P = TypeVar("P", bound=Section)


@dataclass(frozen=True)
class Setting:
    """What an attack is applied to.

    Attributes:
        num_classes: K.
        side: height and width of the images, in pixels.
        own_files: tracked folder for files of the user's own; an attack reads no other file of the project.
            None where an attack is only applied again.
        name: of the attack, for messages; `*` stands for whichever.
        machine: settings, for attacks that train a network or apply one.
    """

    num_classes: int
    side: int
    own_files: Path | None = None
    name: str = "*"
    machine: Machine = DEFAULTS

    @property
    def section(self) -> str:
        """Where the user finds the attack's settings."""
        return f"attacks.{self.name}"


@dataclass(frozen=True)
class Chosen:
    """Rows of the training set, int64, in the order in which they were chosen.

    Attributes:
        poisoned: get the trigger (and, unless the attack is a clean-label one, another label).
        cover: get a trigger and keep their label, so that the trigger alone is not enough.
    """

    poisoned: Tensor
    cover: Tensor


class Attack(Generic[P]):
    """An attack with its settings.

    Attributes:
        params: the settings, published values where the user gave none.
        setting: what it is applied to.
        tensors: what it made for itself (patterns, masks, warps); saved and restored by name.
        chooses_from: which images may be poisoned; the papers differ in this, and `rate` is a share of these.
        after_flips: the trigger comes after the attacker's flips, as released code has it: its training images are
            flipped without their trigger (`backdoor.twins`). False flips the triggers along.
    """

    chooses_from: ClassVar[Candidates] = "every class"
    after_flips: ClassVar[bool] = False

    def __init__(self, params: P, setting: Setting) -> None:
        self.params = params
        self.setting = setting
        self.tensors: dict[str, Tensor] = {}
        self.check()

    def check(self) -> None:
        """Refuses settings that cannot work here.

        Raises:
            UserError: the target is no class of the data set, or what a derived attack adds.
        """
        target = getattr(self.params, "target", None)
        if target is not None and target >= self.setting.num_classes:
            last = self.setting.num_classes - 1
            raise UserError(f"the attack's target {target} is no class of this data set; choose one from 0 to {last}")

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        """Which rows are poisoned: by default `rate` of the candidates, uniformly.

        Args:
            labels: int64 [N], original.
        """
        import torch

        rows = self.candidates(labels)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        return Chosen(rows[: self.count(len(rows))], rows[:0])

    def candidates(self, labels: Tensor) -> Tensor:
        """Rows that may be poisoned, int64, ascending."""
        if self.chooses_from == "every class":
            return labels.new_ones(len(labels)).nonzero().flatten()
        of_target = labels == getattr(self.params, "target", 0)
        return (of_target if self.chooses_from == "the target class" else ~of_target).nonzero().flatten()

    def count(self, candidates: int) -> int:
        """How many of the candidates `rate` picks.

        Raises:
            UserError: it picks none.
        """
        rate: float = getattr(self.params, "rate", 0.0)
        wanted = round(rate * candidates)
        section = self.setting.section
        if candidates == 0:
            raise UserError(f"there is no training image of {self.chooses_from} to poison; change {section}.target")
        if wanted == 0:
            raise UserError(f"a poisoning rate of {rate} picks none of {candidates} images; raise {section}.rate")
        return wanted

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        """The attack's tensors, made once and saved.

        Args:
            images: uint8 [N, 3, side, side], clean training images.
            labels: int64 [N], original.
        """
        del images, labels, chosen, generator
        return {}

    def relabel(self, labels: Tensor) -> Tensor:
        """The label that the attacker gives to images of these labels, int64 of the same shape."""
        return labels.new_full(labels.shape, getattr(self.params, "target", 0))

    def poison(self, images: Tensor, order: Tensor) -> Tensor:
        """Training images with their trigger, uint8 of the same shape.

        Args:
            images: uint8 [n, 3, side, side], the chosen ones.
            order: int64 [n], their places in `Chosen.poisoned`.
        """
        return self.trigger(images, order)

    def cover(self, images: Tensor, order: Tensor) -> Tensor:
        """Cover images with their trigger; arguments as in `poison`, places in `Chosen.cover`."""
        return self.trigger(images, order)

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        """Test images with the trigger, uint8 of the same shape.

        Args:
            images: uint8 [n, 3, side, side].
            keys: int64 [n], their keys in the test split, for triggers that differ by image.
        """
        raise NotImplementedError

    def attacker_augmentation(self) -> AttackerAugmentation:
        """What acts while the classifier is trained; nothing by default."""
        return AttackerAugmentation()

    def initial_weights(self) -> dict[str, Tensor] | None:
        """The state of the network that the attacker's training starts from; None starts it afresh."""
        return None


AnyAttack = Attack[Any]
