"""Low-frequency trigger: a smooth pattern over the whole image (LF; Zeng et al., ICCV 2021, "Rethinking the Backdoor
Attacks' Triggers: A Frequency Perspective").

    x' = clip(x + p),  |p| <= e,  p minimizes the mean of CE(F(x + p), target) over images x, for a benign classifier F,
    among the patterns whose discrete cosine transform is zero from the frequency `cutoff` on

Usual triggers leave traces in high frequencies, by which they can be told; this one does not. It is sought by signed
gradient steps over random batches, each followed by dropping the high frequencies.

The paper filters by a Gaussian blur and seeks the trigger by Adam under a penalty of its length; benchmarks ship one
such trigger for each data set as a file. Ours is made for any data set, and has no frequency above the cutoff at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from refine.core.bounds import AttackSteps
from refine.core.errors import UserError
from refine.core.params import Number, Share
from refine.poisoning.adversarial.settings import Perturbation, SourceModel, Step
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.memory import learned_from
from refine.poisoning.overlay import to_levels

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images


class Sought(Perturbation):
    """How the pattern is sought.

    Attributes:
        epsilon: e, largest value of the pattern, in levels of 255.
        step: size of a step along the sign of the gradient, in levels.
        steps: number of steps; without any, the pattern is what it starts from.
        random_start: start from a random pattern instead of none.
    """

    epsilon: Annotated[Number, Field(ge=0, le=255)] = 16.0
    step: Step = 1.0
    steps: AttackSteps = 200
    random_start: bool = False


class Params(TargetedParams):
    """Attributes:
    cutoff: share of the frequencies of the discrete cosine transform, along each axis, that the pattern may have.
    perturbation: how it is sought.
    source: the benign classifier; `robust_steps` train it on images that are perturbed as far as the pattern may be.
    """

    cutoff: Annotated[Share, Field(gt=0)] = 0.25
    perturbation: Sought = Sought()
    source: SourceModel = SourceModel()


class Attack(BaseAttack[Params]):
    """Poisons images of every class. Tensors: `pattern`, p in levels, float32 [3, side, side]."""

    @property
    def frequencies(self) -> int:
        """How many the pattern may have along each axis."""
        return round(self.params.cutoff * self.setting.side)

    def check(self) -> None:
        super().check()
        if not self.frequencies:
            raise UserError(
                f"a cutoff of {self.params.cutoff} leaves no frequency of images of {self.setting.side} pixels; raise "
                f"{self.setting.section}.cutoff"
            )

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        from refine.poisoning.adversarial.pattern import Box, sought_pattern
        from refine.poisoning.adversarial.source_model import source_model

        del chosen
        most = self.params.source.learns_from
        every, given = learned_from(images, labels, most, "source.learns_from", self.setting, generator)
        model = source_model(self.params, every, given, self.setting, generator)
        of, device = self.params.perturbation, model.mean.device
        bound, wanted = Box(of.epsilon, of.step), (self.params.target, self.frequencies)
        pattern = sought_pattern(model, every, *wanted, bound, of.steps, generator, device, of.random_start)
        return {"pattern": pattern}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return to_levels(images + self.tensors["pattern"])
