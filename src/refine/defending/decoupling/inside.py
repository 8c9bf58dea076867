"""A classifier's last map: to look at it, and to weigh it on its way to the answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from refine.defending.maps import last_of_each_resolution
from refine.models.classifier import Classifier
from refine.models.device import Compute, to_float32


@dataclass(frozen=True)
class Answer:
    """What a network makes of images.

    Attributes:
        logits: float32 [B, K].
        map: its last map, before any mask, float32 [B, C, h, w].
    """

    logits: Tensor
    map: Tensor


class Inside:
    """The network of a classifier, with its last map of more than one pixel in view.

    Args:
        classifier: on its device. Its network gets a hook, which stays.
        side: of its images.
        compute: for autocast.
        precision: of it.
    """

    def __init__(self, classifier: Classifier, side: int, compute: Compute, precision: str) -> None:
        self.network = classifier.network
        self._compute, self._precision = compute, precision
        self._mask: Tensor | None = None
        self._map = torch.empty(0)
        place = last_of_each_resolution(self.network, side)[-1]
        self.network.get_submodule(place).register_forward_hook(self._look)

    def _look(self, _: nn.Module, __: object, out: Tensor) -> Tensor:
        self._map = out
        return out if self._mask is None else out * self._mask.to(out.dtype)

    def answer(self, images: Tensor, mask: Tensor | None = None) -> Answer:
        """Answers normalized images float [B, 3, H, W], with the map weighed by a mask float [1, C, h, w]."""
        self._mask = mask
        with self._compute.autocast(self._precision):
            logits = self.network(images)
        self._mask = None
        return Answer(to_float32(logits), to_float32(self._map))
