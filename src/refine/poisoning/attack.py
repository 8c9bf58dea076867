"""The base class of attacks. Each module in `refine.attacks` defines `Params` and a subclass `Attack`.

An attack is a pure function of its settings and its tensors. This package does the rest for all attacks: it selects and
relabels images, writes shards, draws the preview, saves the attack and applies it again. Modules of attacks import
torch only inside functions, so that parameters can be checked without it.
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

    from refine.shards.reading.pixels import Images

NONE = "none"
"""The attack that leaves every image and every label as it is, and so takes images without labels, too."""
Candidates = Literal["every class", "other classes", "the target class"]


class TargetedParams(Section):
    """Settings of attacks with one target class; attacks that poison only some classes describe `rate` anew.

    Attributes:
        rate: poisoned fraction of the whole training set.
        target: class that the trigger leads to.
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
        own_files: folder for the user's own files, tracked by DVC; an attack reads no other file of the project.
            None if a saved attack is applied again.
        name: of the attack, for error messages; `*` for any.
        machine: settings of the machine, for attacks that train or apply a network.
    """

    num_classes: int
    side: int
    own_files: Path | None = None
    name: str = "*"
    machine: Machine = DEFAULTS

    @property
    def section(self) -> str:
        """Section of `params.yaml` with the settings of the attack."""
        return f"attacks.{self.name}"


@dataclass(frozen=True)
class Chosen:
    """Indices of the selected training images, int64, in the order of their selection.

    Attributes:
        poisoned: images with the trigger and (except in clean-label attacks) the target label.
        cover: images with a trigger that keep their label.
    """

    poisoned: Tensor
    cover: Tensor


class Attack(Generic[P]):
    """An attack with its settings.

    Attributes:
        params: its settings; defaults are the published values.
        setting: what it is applied to.
        tensors: made by `prepare` (patterns, masks, warps), saved and loaded by name.
        chooses_from: which training images may be poisoned, where papers differ; `rate` is a fraction of these.
        after_flips: whether the trigger is applied after random flips in training, as in released code, so that flips
            do not change it (`backdoor.twins`).
    """

    chooses_from: ClassVar[Candidates] = "every class"
    after_flips: ClassVar[bool] = False

    def __init__(self, params: P, setting: Setting) -> None:
        self.params = params
        self.setting = setting
        self.tensors: dict[str, Tensor] = {}
        self.check()

    def check(self) -> None:
        """Refuses settings that do not fit the data set.

        Raises:
            UserError: the target is not a class of the data set; subclasses add further cases.
        """
        target = getattr(self.params, "target", None)
        if target is not None and target >= self.setting.num_classes:
            last = self.setting.num_classes - 1
            raise UserError(
                f"the attack's target {target} is not a class of this data set; choose one from 0 to {last}"
            )

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        """Selects the images to poison: by default, a fraction `rate` of the candidates, uniformly.

        Args:
            labels: int64 [N], original labels.
            generator: on the CPU.
        """
        import torch

        rows = self.candidates(labels)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        return Chosen(rows[: self.count(len(rows))], rows[:0])

    def chosen_with_covers(self, samples: int, covers: int, generator: Generator, setting: str) -> Chosen:
        """Selects images to poison and, from the others, cover images, uniformly.

        Args:
            samples: training images.
            covers: how many cover images.
            generator: on the CPU.
            setting: of the attack that decides on their number.

        Raises:
            UserError: there are too few images.
        """
        import torch

        rows, poisoned = torch.randperm(samples, generator=generator), self.count(samples)
        if poisoned + covers > samples:
            section = self.setting.section
            raise UserError(
                f"{poisoned} poisoned and {covers} cover images are more than the {samples} training images; lower "
                f"{section}.rate or {section}.{setting}"
            )
        return Chosen(rows[:poisoned], rows[poisoned : poisoned + covers])

    def candidates(self, labels: Tensor) -> Tensor:
        """Indices of the images that may be poisoned, int64, ascending."""
        if self.chooses_from == "every class":
            return labels.new_ones(len(labels)).nonzero().flatten()
        of_target = labels == getattr(self.params, "target", 0)
        return (of_target if self.chooses_from == "the target class" else ~of_target).nonzero().flatten()

    def count(self, candidates: int) -> int:
        """Number of candidates to poison.

        Raises:
            UserError: it is zero.
        """
        rate: float = getattr(self.params, "rate", 0.0)
        wanted = round(rate * candidates)
        section = self.setting.section
        if candidates == 0:
            raise UserError(f"there is no training image of {self.chooses_from} to poison; change {section}.target")
        if wanted == 0:
            raise UserError(f"a poisoning rate of {rate} picks none of {candidates} images; raise {section}.rate")
        return wanted

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        """Makes the tensors of the attack, which are saved with it.

        Args:
            images: clean training images, uint8 [N, 3, side, side]; an attack that trains a network on them takes
                `learned_from`.
            labels: int64 [N], original labels.
            chosen: the selected images.
            generator: on the CPU.
        """
        del images, labels, chosen, generator
        return {}

    def relabel(self, labels: Tensor) -> Tensor:
        """The labels that the attacker assigns to images with these labels, int64 of the same shape."""
        return labels.new_full(labels.shape, getattr(self.params, "target", 0))

    def poison(self, images: Tensor, order: Tensor) -> Tensor:
        """Adds the trigger to training images, uint8 of the same shape.

        Args:
            images: uint8 [n, 3, side, side].
            order: int64 [n], their positions in `Chosen.poisoned`.
        """
        return self.trigger(images, order)

    def cover(self, images: Tensor, order: Tensor) -> Tensor:
        """Adds the trigger to cover images; as `poison`, with positions in `Chosen.cover`."""
        return self.trigger(images, order)

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        """Adds the trigger to test images, uint8 of the same shape.

        Args:
            images: uint8 [n, 3, side, side].
            keys: int64 [n], their keys in the test split, for triggers that differ between images.
        """
        raise NotImplementedError

    def attacker_augmentation(self) -> AttackerAugmentation:
        """What the attack does while the classifier is trained; by default, nothing."""
        return AttackerAugmentation()

    def initial_weights(self) -> dict[str, Tensor] | None:
        """Weights that the training of the classifier starts from; None for a random initialization."""
        return None


AnyAttack = Attack[Any]
