"""An encoder that knows images already, and a small decoder.

The published transform learns to see through its decoder and the frozen classifier. Here the encoder is a network of
the classifier's own architecture, which learns the classifier's answers under a head of its own, and the decoder sees
nothing but its features, so that whatever these do not tell is not in the picture that the classifier gets.

The encoder may begin with the classifier's own weights, of which a share is replaced by new ones that grows with depth,
as a student of BCU begins (Pang et al., CVPR 2023). It then has less to learn, but what the kept layers know of a
trigger may come along, how much depends on the attack and the shares; see docs/results.md.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from refine.defending.replacement import probabilities, replace
from refine.defenses.refine.model.transform import Transform
from refine.defenses.refine.model.transforms.encoder_decoder.params import Params
from refine.models import classifier as classifiers
from refine.models.apart import side_of
from refine.models.classifier import Classifier, ClassifierCard, head_of
from refine.models.folding import folded

_SMALLEST = 4
"""Largest side of the maps that the decoder begins with."""
_FEWEST = 16
"""Channels of its last maps, where it has that many."""


class EncoderDecoder(Transform):
    """Maps images to images of the same size. See `Transform`.

    Args:
        params: settings.
        card: of the classifier whose architecture the encoder has.

    Shapes:
        pixels float [N, 3, side, side] in [0, 1] to float [N, 3, side, side], unbounded values.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, params: Params, card: ClassifierCard) -> None:
        super().__init__()
        self._params, self._card = params, card
        self.network, head = _apart(classifiers.like(self._card).network)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(card.normalization, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self._sizes = _sizes(card.input_side)
        widths = [max(params.channels >> level, min(_FEWEST, params.channels)) for level in range(len(self._sizes))]
        self.inlet = nn.Linear(head.in_features, widths[0] * self._sizes[0] ** 2)
        self.up = nn.ModuleList(_convolution(*pair) for pair in pairwise(widths))
        self.outlet = nn.Conv2d(widths[-1], 3, 3, padding=1)

    @property
    def side(self) -> int:
        """Height and width of images that its encoder takes; see `models.apart.side_of`."""
        return side_of(self.network)

    def encoder(self) -> list[nn.Module]:
        return [self.network]

    def encoded(self, images: Tensor) -> Tensor:
        """The network's features."""
        features: Tensor = self._network((images - self.mean) / self.std)
        return features

    def new_head(self, classes: int) -> nn.Module:
        """That of the classifier's architecture, which fixes the number of classes."""
        return _apart(classifiers.like(self._card).network)[1]

    def begin(self, classifier: Classifier, classes: int, pixels: Callable[[], Tensor]) -> nn.Module:
        """Its encoder begins as `start` says."""
        params, new = self._params, classifiers.like(self._card)
        if params.start == "fresh":
            classifiers.init_from_data(new, pixels)
            network, head = _apart(new.network)
        else:
            copy = deepcopy(classifier.network)
            replace(copy, new.network, probabilities(new.network, params.replaced, params.replaced_in_head))
            network, head = _apart(copy)
        self.network.load_state_dict(network.state_dict())
        return head.requires_grad_()

    def freeze_encoder(self) -> None:
        super().freeze_encoder()
        if not distributed.is_initialized():  # else processes share what is registered, and this is not
            self.__dict__["_folded"] = folded(self.network.eval())  # faster, and no part of the transform's state

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoded(images)
        maps = self.inlet(features).unflatten(1, (-1, self._sizes[0], self._sizes[0]))
        maps = maps.contiguous(memory_format=torch.channels_last)
        for size, up in zip(self._sizes[1:], self.up, strict=True):
            maps = up(functional.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False))
        out: Tensor = self.outlet(maps)
        return out

    @property
    def _network(self) -> nn.Module:
        network: nn.Module = self.__dict__.get("_folded", self.network)
        return network


def _apart(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """A classifier's network that ends at its features, and its head, which is a linear layer."""
    head = head_of(network, "the transform encoder_decoder")
    network.head = nn.Identity()
    return network, head


def _sizes(side: int) -> list[int]:
    """Sides of the decoder's maps, each about half of the next one; the last is that of the image."""
    sizes = [side]
    while sizes[0] > _SMALLEST:
        sizes.insert(0, -(-sizes[0] // 2))
    return sizes


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def build(params: Params, card: ClassifierCard) -> EncoderDecoder:
    """See `transform.built`."""
    return EncoderDecoder(params, card)
