"""What BDMAE does (Sun et al., arXiv 2303.15564), with an autoencoder that is trained on the defender's own images.

Parts of an image that may be a trigger are drawn anew from the rest of it (`search`), and the classifier answers the
result. BDMAE takes a masked autoencoder that was trained on ImageNet and needs no image; such weights with a decoder
are in no package, so here a small one learns from unlabeled images, and must not be called BDMAE. If these images hold
the trigger, it learns to draw it.

Of the classifier, the search uses nothing but the classes that it answers: 48 times for each image.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from refine.core.bounds import BatchSize, Epochs
from refine.core.errors import UserError
from refine.core.params import Section, Seed
from refine.defending.protocol.card import protected_classifier, read_defense_card, settings_of, weights_of
from refine.defending.protocol.defense import Defense
from refine.defending.randomness import keys
from refine.defenses.local_mae.autoencoder import MaskedAutoencoder
from refine.defenses.local_mae.search import Search
from refine.models.card import restored
from refine.models.classifier import Classifier
from refine.models.device import to_float32
from refine.models.probe import probe, refuse_unusable
from refine.training.recipe import Augment, DefenderRecipe, Optimizer, Schedule, paper_by_name

NAME = "local_mae"
_TOKENS = 16
_FEWEST, _MOST = 4, 32
"""Tokens along a side. With fewer, a single one is too large a part of the image; more take too long."""
_LEVELS = 255

Size = Annotated[int, Field(ge=8, le=4096, multiple_of=4)]
Count = Annotated[int, Field(ge=1, le=64)]


class AutoencoderRecipe(DefenderRecipe):
    """Of the autoencoder."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    epochs: Epochs = 200
    batch_size: BatchSize = 256
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(name="adamw", lr=1.5e-4, weight_decay=0.05)
    schedule: Schedule = Schedule(name="cosine", rise=0.1)
    augment: Augment = Augment(crop_scale=0.2, flip=0.5)


class Params(Section):
    """Attributes:
    patch_side: pixels along a side of a token, a divisor of the side of the images; null takes the one, from 2 on, that
        is nearest to a sixteenth of it (2 at 32 pixels, 14 at 224). 4 instead of 2 takes a quarter of the time.
    width: of the encoder; a multiple of 4 and of `heads`.
    depth: its layers.
    heads: of its attention.
    decoder_width: of the decoder.
    decoder_depth: its layers.
    decoder_heads: of its attention.
    seed: of the search.
    recipe: how the autoencoder is trained.
    """

    patch_side: Annotated[int, Field(ge=1, le=256)] | None = None
    width: Size = 192
    depth: Count = 12
    heads: Count = 3
    decoder_width: Size = 128
    decoder_depth: Count = 4
    decoder_heads: Count = 4
    seed: Seed = 1
    recipe: Annotated[AutoencoderRecipe, BeforeValidator(paper_by_name)] = AutoencoderRecipe()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, width, heads in (("", self.width, self.heads), ("decoder_", self.decoder_width, self.decoder_heads)):
            if width % heads:
                raise ValueError(f"{name}width has to be a multiple of {name}heads")
        return self


def autoencoder(params: Params, side: int) -> MaskedAutoencoder:
    """With new weights, for images of so many pixels.

    Raises:
        UserError: the images cannot be cut into such tokens.
    """
    divisors = [patch for patch in range(1, side) if not side % patch and _FEWEST <= side // patch <= _MOST]
    patch = params.patch_side or min(
        (patch for patch in divisors if patch > 1), key=lambda patch: abs(patch - side / _TOKENS), default=0
    )
    if patch not in divisors:
        raise UserError(
            f"images of {side} pixels cannot be cut into tokens of {patch or 'any size'}, {_FEWEST} to {_MOST} along a "
            f"side; set defense_settings.{NAME}.patch_side to one of {divisors or 'no size: take other images'}"
        )
    decoder = params.decoder_width, params.decoder_depth, params.decoder_heads
    return MaskedAutoencoder(side, patch, params.width, params.depth, params.heads, decoder)


class Defended(Defense):
    """See `defending.protocol.defense.Defense`.

    Args:
        classifier: frozen.
        autoencoder: of its normalized images.
        seed: of the search.
    """

    title = "masked autoencoder"
    regime = "unlabeled"

    def __init__(self, classifier: Classifier, autoencoder: MaskedAutoencoder, seed: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.autoencoder = autoencoder
        self.seed = seed

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.transformed(pixels))
        return logits

    def transformed(self, pixels: Tensor) -> Tensor:
        """Images whose suspicious parts are drawn anew, pixels in [0, 1], same shape."""
        self.classifier.refuse_other(pixels)
        return self.drawn(pixels, self.masks(pixels))

    @torch.no_grad()
    def masks(self, pixels: Tensor) -> Tensor:
        """See `search.Search.masks`; nothing of it has a gradient, or moves statistics of a network in training."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            answer = partial(_answers, self.classifier)
            return Search(self.restored, answer, self.autoencoder.across, keys(pixels, self.seed)).masks(pixels)
        finally:
            for module in training:
                module.training = True

    def drawn(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """The mean of what is drawn for each of the masks, bool [N, M, T], where there is any."""
        total, count = torch.zeros_like(pixels), torch.zeros_like(pixels[:, :1])
        for mask in masks.unbind(dim=1):
            if mask.any():
                where = self.autoencoder.spread(mask.to(pixels.dtype))
                total, count = total + where * self._redrawn(pixels, mask), count + where
        return torch.where(count > 0, total / count.clamp(min=1), pixels)

    def restored(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """See `search.Restore`."""
        # Whole levels, so that what a batch changes in the last digits hardly ever changes an answer.
        levels = (self._redrawn(pixels, mask) * _LEVELS).round() / _LEVELS
        return torch.where(self.autoencoder.spread(mask), levels, pixels)

    def network_inputs(self, transformed: Tensor) -> Tensor:
        """See `Purifies`."""
        return self.classifier.normalize(transformed)

    def pictures(self, pixels: Tensor) -> Tensor:
        """See `Purifies`."""
        return self.transformed(pixels)

    def _redrawn(self, pixels: Tensor, mask: Tensor) -> Tensor:
        made = to_float32(self.autoencoder(self.classifier.normalize(pixels), mask))
        return (made * self.classifier.std + self.classifier.mean).clamp(0, 1)


def _answers(classifier: Classifier, pixels: Tensor) -> Tensor:
    return classifier(pixels).argmax(dim=1)  # type: ignore[no-any-return]


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    card = read_defense_card(folder, NAME)
    params: Params = settings_of(folder, card, Params)
    classifier, of = protected_classifier(folder, card.classifier_sha256, classifier_folder)
    path, sha256 = weights_of(folder, card)
    made = restored(partial(autoencoder, params, of.input_side), path, sha256)
    refuse_unusable(_HalfHidden(made).eval(), classifier.normalize(probe(of.input_side)), path)
    return Defended(classifier, made.requires_grad_(False), params.seed).eval()


class _HalfHidden(nn.Module):
    """An autoencoder that draws every other token, as a network of images alone."""

    def __init__(self, autoencoder: MaskedAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        mask = torch.arange(self.autoencoder.tokens, device=images.device) % 2 == 0
        drawn: Tensor = self.autoencoder(images, mask.expand(len(images), -1))
        return drawn
