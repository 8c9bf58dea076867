"""SSBA: each image has a trigger of its own, the trace of a hidden message (Li et al. 2021, ISSBA).

    x' = clip(x + s tanh(E(x, m))),  m the same secret bits in every image, |x' - x| <= s

E is a network in the manner of StegaStamp (Tancik et al. 2020). The published one is a TensorFlow file for 224
pixels that is not ours to ship; ours is trained in this stage on the clean training images, together with a decoder
D that reads random messages back, to minimize

    cross-entropy of D(round(x')) and m  +  w h  +  v u,  h = mean ((x' - x) / (c + contrast of x nearby))^2

h is cheap where the image is busy; u is how much the traces of one message in two images are alike (their cosine).
Both make traces follow the image; their weights rise from 0 over the first half of the training. Differences from
the published encoder: the bits are drawn from the seed and carry no error correction, as nobody has to read them;
each bit has its own cell of the image; and no print or camera stands between E and D.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from refine.core.bounds import BatchSize, Epochs
from refine.core.errors import UserError
from refine.core.params import PositiveNumber, Weight
from refine.poisoning.attack import Attack as BaseAttack
from refine.poisoning.attack import Chosen, TargetedParams
from refine.poisoning.overlay import to_levels
from refine.training.recipe import Augment, Optimizer, Recipe, Schedule

if TYPE_CHECKING:
    from torch import Generator, Tensor

_ENCODER = "encoder."
_PIXELS = 2**18  # in one pass of the encoder in double precision; bounds its memory


class EncoderRecipe(Recipe):
    """Our own values; none are published for this network."""

    place: ClassVar[str] = "attacks.ssba.recipe"

    epochs: Epochs = 10
    batch_size: BatchSize = 64
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(name="adamw", lr=4e-3, weight_decay=0.0)
    schedule: Schedule = Schedule(name="one_cycle")
    augment: Augment = Augment()


class Params(TargetedParams):
    """Attributes:
    rate: poisoned share of the images of other classes than the target.
    bits: length of the message; StegaStamp's is 100.
    strength: s, largest change of a channel, in levels of 255.
    hiding: w, weight of the term h that hides the trace.
    variety: v, weight of the term u that keeps traces apart; at 1 the decoder may fail to learn the message.
    width: channels of the first layer of encoder and decoder.
    recipe: how encoder and decoder are trained; these values are our own.
    """

    bits: Annotated[int, Field(ge=1, le=1024)] = 100
    strength: Annotated[PositiveNumber, Field(ge=1, le=255)] = 16.0
    hiding: Weight = 1.0
    variety: Weight = 0.3
    width: Annotated[int, Field(ge=1, le=256)] = 16
    recipe: EncoderRecipe = EncoderRecipe()


class Attack(BaseAttack[Params]):
    """Poisons images of other classes than the target.

    Tensors: `secret`, m, uint8 [bits]; the encoder's weights, float32, under `encoder.`.
    """

    chooses_from = "other classes"

    def check(self) -> None:
        super().check()
        if self.setting.side**2 < self.params.bits:
            raise UserError(
                f"a message of {self.params.bits} bits does not fit images of {self.setting.side} pixels, "
                "one bit to a pixel at most; lower attacks.ssba.bits"
            )

    def prepare(self, images: Tensor, labels: Tensor, chosen: Chosen, generator: Generator) -> dict[str, Tensor]:
        import torch

        from refine.models.device import compute
        from refine.poisoning.steganography.training import trained_pair

        del labels, chosen
        params = self.params
        secret = torch.randint(0, 2, (params.bits,), generator=generator, dtype=torch.uint8)
        pair = trained_pair(
            images,
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
        """In double precision: the levels are the same in every batch and on every processor."""
        import torch

        from refine.models.device import compute
        from refine.poisoning.steganography.networks import Encoder

        del keys
        encoder = Encoder(self.params.bits, self.params.width, self.params.strength / 255)
        state = {name.removeprefix(_ENCODER): value for name, value in self.tensors.items() if name != "secret"}
        encoder.load_state_dict(state)
        device = compute(self.setting.machine).device
        encoder.double().to(device)
        secret = self.tensors["secret"].double().to(device)
        triggered = images.clone()
        count = max(1, _PIXELS // self.setting.side**2)
        with torch.no_grad():
            for start in range(0, len(images), count):
                levels = images[start : start + count].to(device).double()
                trace = encoder(levels / 255, secret.expand(len(levels), -1))
                triggered[start : start + count] = to_levels(levels + 255 * trace).cpu()
        return triggered
