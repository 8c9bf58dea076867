"""SSBA: a sample-specific trigger, the trace of a hidden message in the image (Li et al. 2021, ISSBA).

    x' = clip(x + s tanh(E(x, m))),  with the same secret bits m for all images, |x' - x| <= s

E is an encoder similar to StegaStamp (Tancik et al. 2020). The published one is a TensorFlow model for 224 pixels that
we may not redistribute; ours is trained in this stage on clean training images, together with a decoder D of random
messages, to minimize

    cross-entropy of D(round(x')) and m  +  w h  +  v u,  h = mean ((x' - x) / (c + contrast of x nearby))^2

h is small where the image has texture; u is the cosine similarity of the traces of one message in two images. Both
terms make traces depend on the image; their weights rise from 0 during the first half of the training. Differences from
the published encoder: the bits are drawn from the seed without error correction, as nobody needs to decode them; each
bit has its own cell of the image; and no printing or photographing is simulated between E and D.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from refine.core.bounds import BatchSize, Epochs
from refine.core.errors import UserError
from refine.core.params import PositiveNumber, Weight
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.memory import LearnsFrom, learned_from
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.shards.reading.pixels import Images

_ENCODER = "encoder."


class EncoderRecipe(Recipe):
    """Our own defaults; none are published for this network."""

    place: ClassVar[str] = "attacks.ssba.recipe"

    epochs: Epochs = 10
    batch_size: BatchSize = 64
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(name="adamw", lr=4e-3, weight_decay=0.0)
    schedule: Schedule = Schedule(name="one_cycle")
    augment: Augment = Augment()


class Params(TargetedParams):
    """Attributes:
    rate: poisoned fraction of the images of all classes except the target.
    bits: length of the message; StegaStamp's is 100.
    strength: s, largest change of a value, in levels of 255.
    hiding: w, weight of the term h that hides the trace.
    variety: v, weight of the term u that makes traces differ; at 1 the decoder may fail to learn.
    width: channels of the first layers of encoder and decoder.
    recipe: how encoder and decoder are trained; our own values.
    learns_from: how many training images they are trained on, drawn at random; by default all. They are in memory.
    """

    bits: Annotated[int, Field(ge=1, le=1024)] = 100
    strength: Annotated[PositiveNumber, Field(ge=1, le=255)] = 16.0
    hiding: Weight = 1.0
    variety: Weight = 0.3
    width: Annotated[int, Field(ge=1, le=256)] = 16
    recipe: EncoderRecipe = EncoderRecipe()
    learns_from: LearnsFrom = None


class Attack(BaseAttack[Params]):
    """Poisons images of all classes except the target.

    Tensors: `secret`, m, uint8 [bits]; the weights of the encoder, float32, with the prefix `encoder.`.
    """

    chooses_from = "other classes"

    def check(self) -> None:
        super().check()
        if self.setting.side**2 < self.params.bits:
            raise UserError(
                f"a message of {self.params.bits} bits does not fit images of {self.setting.side} pixels, "
                "at most one bit per pixel; lower attacks.ssba.bits"
            )

    def prepare(self, images: Images, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch

        from refine.models.device import compute
        from refine.poisoning.steganography.training import trained_pair

        del chosen
        params = self.params
        every, _ = learned_from(images, labels, params.learns_from, "learns_from", self.setting, generator)
        secret = torch.randint(0, 2, (params.bits,), generator=generator, dtype=torch.uint8)
        pair = trained_pair(
            every,
            params.bits,
            params.width,
            params.strength / 255,
            (params.hiding, params.variety),
            params.recipe,
            generator,
            compute(self.setting.machine),
        )
        return {"secret": secret, **{f"{_ENCODER}{name}": value for name, value in pair.encoder.state_dict().items()}}

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        from refine.models.device import compute
        from refine.poisoning.overlay import repainted
        from refine.poisoning.steganography.networks import Encoder

        del keys
        encoder = Encoder(self.params.bits, self.params.width, self.params.strength / 255)
        state = {name.removeprefix(_ENCODER): value for name, value in self.tensors.items() if name != "secret"}
        encoder.load_state_dict(state)
        device = compute(self.setting.machine).device
        encoder.double().to(device)
        secret = self.tensors["secret"].double().to(device)
        return repainted(images, lambda pixels, rows: pixels + encoder(pixels, secret.expand(len(pixels), -1)), device)
