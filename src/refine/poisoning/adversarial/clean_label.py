"""The clean-label attacks of both papers, which only differ in their settings.

    training:  x' = patch(x + d),  |d| <= e,  d raises the loss of a benign classifier on the label of x
    test:      x' = patch(x)

Images of the target class are poisoned and keep their label. As d hides the features of the class, a classifier that
is trained on them learns the patch instead.

torch is imported inside functions only, see `poisoning.attack`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from refine.core.errors import UserError
from refine.poisoning.adversarial.settings import CleanLabelParams
from refine.poisoning.attack import Attack, Chosen
from refine.poisoning.memory import refuse_many
from refine.poisoning.overlay import MOTIF, in_four_corners, in_proportion, motif, texture, texture_side

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

_SOURCE = "source."


P = TypeVar("P", bound=CleanLabelParams)


class CleanLabelAttack(Attack[P]):
    """Poisons images of the target class.

    Tensors: `patch`, uint8 [3, side, side], which is drawn where `mask`, bool [1, side, side], is true; `perturbed`,
    x + d of the poisoned images in the order of their selection, uint8 [n, 3, side, side]; with `start_from_source`,
    the weights of the benign network, with the prefix `source.`.

    Attributes:
        margin: pixels between a patch and the top or left edge, on images of 32 pixels.
    """

    chooses_from = "the target class"
    margin: ClassVar[int]

    @property
    def patch_side(self) -> int:
        """Height and width of a patch in pixels."""
        side = self.setting.side
        published = texture_side(side) if self.params.pattern == "texture" else max(len(MOTIF), in_proportion(3, side))
        return self.params.patch_side or published

    def check(self) -> None:
        super().check()
        room = self.setting.side if self.params.corners == 1 else (self.setting.side - self._margin()) // 2
        if self.patch_side > room:
            where = "" if self.params.corners == 1 else " in each of the four corners"
            raise UserError(
                f"a patch of {self.patch_side} pixels{where} does not fit images of {self.setting.side}; "
                f"lower {self.setting.section}.patch_side"
            )

    def _margin(self) -> int:
        return self.margin and in_proportion(self.margin, self.setting.side)

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        from refine.poisoning.adversarial.pgd import perturbed
        from refine.poisoning.adversarial.source_model import source_model

        tensors = self._draw(generator)
        refuse_many(len(chosen.poisoned), "poisoned", self.setting)
        victims, own = images[chosen.poisoned], labels[chosen.poisoned]
        if self.params.perturbation.steps == 0 and not self.params.start_from_source:
            return {**tensors, "perturbed": victims}
        model = source_model(self.params, images, labels, self.setting, generator)
        tensors["perturbed"] = perturbed(model, victims, own, self.params.perturbation, generator)
        if self.params.start_from_source:
            tensors |= {f"{_SOURCE}{name}": value.cpu() for name, value in model.network.state_dict().items()}
        return tensors

    def _draw(self, generator: Generator) -> dict[str, Tensor]:
        side = self.setting.side
        pattern = texture(self.patch_side, generator) if self.params.pattern == "texture" else motif(self.patch_side)
        patch, mask = in_four_corners(pattern, side, self._margin())
        if self.params.corners == 1:
            mask[:, : side - self.patch_side] = False
            mask[:, :, : side - self.patch_side] = False
        return {"patch": patch * mask, "mask": mask}

    def poison(self, images: Tensor, order: Tensor) -> Tensor:
        del images
        return self.trigger(self.tensors["perturbed"][order], order)

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return self.tensors["patch"].where(self.tensors["mask"], images)

    def initial_weights(self) -> dict[str, Tensor] | None:
        state = {name.removeprefix(_SOURCE): value for name, value in self.tensors.items() if name.startswith(_SOURCE)}
        return state or None
