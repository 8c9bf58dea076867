"""A classifier's last map: to look at it, and to weigh it on its way to the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from refine.defending.maps import last_of_all
from refine.models.device import to_float32


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
    """A network with its last map in view.

    Args:
        network: of a classifier, on its device. It gets a hook, which stays.
        side: of its images.
        asked_by: what needs it, for the error message.

    Raises:
        UserError: see `defending.maps.last_of_all`.
    """

    def __init__(self, network: nn.Module, side: int, asked_by: str) -> None:
        self.network = network
        self._masks: list[Tensor] = []
        self._maps: list[Tensor] = []
        network.get_submodule(last_of_all(network, side, asked_by)).register_forward_hook(self._hook())

    def _hook(self) -> Callable[..., Tensor]:
        masks, maps = self._masks, self._maps  # not `self`: copies of the network would copy it, and its tensors

        def look(_: nn.Module, __: object, out: Tensor) -> Tensor:
            maps[:] = [out]
            return out * masks[0].to(out.dtype) if masks else out

        return look

    def answer(self, images: Tensor, mask: Tensor | None = None) -> Answer:
        """Answers normalized images float [B, 3, H, W], with the map weighed by a mask float [1, C, h, w]."""
        self._masks[:] = [] if mask is None else [mask]
        logits = self.network(images)
        self._masks.clear()
        return Answer(to_float32(logits), to_float32(self._maps.pop()))
