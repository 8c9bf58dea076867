"""Input-aware trigger: each image has its own, which does not work on another (Nguyen and Tran, NeurIPS 2020).

    x' = x + m(x) (p(x) - x),  with a mask m and a pattern p that two networks draw for the image

The network of masks is trained first, to cover little of an image and other places of each:

    w mean(max(m(x) - density, 0))  +  v |x - y| / |m(x) - m(y)|,  x and y two images

That of patterns is then trained together with a classifier, to minimize the cross-entropy on clean images, on images
with their own trigger and the target, and on images with the trigger of another one and their own label, plus
v |x - y| / |p(x) - p(y)|. In the attacked training set, images of the third kind keep their label, so that only an
image's own trigger leads to the target.

The official code attacks the classifier that it trains together with the patterns. Here that classifier only serves to
find them, and the attacked one is trained on the data alone, like that of every other attack. One optimizer trains both
networks; the published one is SGD for the classifier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, SerializeAsAny

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Share, Weight
from refine.models.architecture import Architecture, named
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.memory import LearnsFrom, learned_from
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

_KEPT = 200
"""Images whose triggers are kept for crossed images."""
_PARTS = ("mask.", "pattern.")


class MaskRecipe(Recipe):
    """The published values, but for the decay of Adam's moments, and a tenth of the learning rate: with more, masks may
    come to cover nothing."""

    place: ClassVar[str] = "attacks.input_aware.mask_recipe"

    epochs: Epochs = 25
    batch_size: BatchSize = 128
    drop_last: bool = True
    optimizer: Optimizer = Optimizer(name="adamw", lr=0.001, weight_decay=0.0)
    schedule: Schedule = Schedule(milestones=[0.4, 0.8])
    augment: Augment = Augment()


class PatternRecipe(Recipe):
    """Our own values; published are 600 epochs by another optimizer."""

    place: ClassVar[str] = "attacks.input_aware.recipe"

    epochs: Epochs = 60
    batch_size: BatchSize = 128
    drop_last: bool = True
    optimizer: Optimizer = Optimizer(name="adamw", lr=0.003, weight_decay=5e-4)
    schedule: Schedule = Schedule(name="one_cycle")
    augment: Augment = Augment()


class Params(TargetedParams):
    """Attributes:
    cross_ratio: images with the trigger of another one, per poisoned image.
    density: share of an image that a mask may cover at no cost.
    sparsity: w, weight of what is covered beyond.
    variety: v, weight of the likeness of two triggers.
    width: channels of the first layers of both networks; published are 32, and 16 for digits.
    mask_recipe: how the network of masks is trained.
    network: architecture of the classifier that is trained together with the network of patterns.
    recipe: how these two are trained.
    learns_from: how many training images all of them are trained on, drawn at random; by default all.
    """

    cross_ratio: Weight = 1.0
    density: Share = 0.032
    sparsity: Weight = 100.0
    variety: Weight = 1.0
    width: Annotated[int, Field(ge=1, le=256)] = 32
    mask_recipe: MaskRecipe = MaskRecipe()
    network: SerializeAsAny[Architecture] = Field(default_factory=lambda: named("resnet18"))
    recipe: PatternRecipe = PatternRecipe()
    learns_from: LearnsFrom = None


class Attack(BaseAttack[Params]):
    """Poisons images of every class.

    Tensors: the weights of both networks, float32, with the prefixes `mask.` and `pattern.`; `others`, images whose
    triggers crossed images get, uint8 [R, 3, side, side]; `seed`, int64 [1], from which it is drawn which.
    """

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        crossed = round(self.params.cross_ratio * self.count(len(labels)))
        return self.chosen_with_covers(len(labels), crossed, generator, "cross_ratio")

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch

        from refine.models.device import compute
        from refine.poisoning.adversarial.source_model import new_classifier
        from refine.poisoning.drawing.networks import Drawers
        from refine.poisoning.drawing.training import Shares, train_mask, train_pattern

        del chosen
        params, resolved = self.params, compute(self.setting.machine)
        every, labels = learned_from(images, labels, params.learns_from, "learns_from", self.setting, generator)
        seeds = [int(seed) for seed in torch.randint(2**31, (3,), generator=generator)]
        torch.manual_seed(seeds[0])
        drawers = Drawers(params.width).to(resolved.device).to(memory_format=torch.channels_last)
        classifier = new_classifier(params.network, every, self.setting, resolved)
        costs = params.density, params.sparsity, params.variety
        train_mask(drawers, every, costs, params.mask_recipe, seeds[1], resolved)
        shares = Shares(params.rate, params.rate * params.cross_ratio, params.target)
        train_pattern(drawers, classifier, (every, labels), shares, params.variety, params.recipe, seeds[2], resolved)
        return {
            **{name: value.contiguous() for name, value in drawers.cpu().state_dict().items()},
            "others": every[torch.randperm(len(every), generator=generator)[:_KEPT]],
            "seed": torch.randint(0, 2**62, (1,), generator=generator),
        }

    def cover(self, images: Tensor, order: Tensor) -> Tensor:
        from refine.poisoning.overlay import drawn_rows

        others = self.tensors["others"]
        return self._painted(images, others[drawn_rows(len(others), order, int(self.tensors["seed"]))])

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        del keys
        return self._painted(images, images)

    def _painted(self, images: Tensor, of: Tensor) -> Tensor:
        from refine.models.device import compute
        from refine.poisoning.drawing.networks import Drawers
        from refine.poisoning.overlay import repainted

        device = compute(self.setting.machine).device
        drawers = Drawers(self.params.width)
        drawers.load_state_dict({name: value for name, value in self.tensors.items() if name.startswith(_PARTS)})
        drawers.double().to(device).eval()
        return repainted(images, lambda pixels, rows: drawers(pixels, of[rows].to(device).double() / 255), device)
