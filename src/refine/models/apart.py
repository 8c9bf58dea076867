"""Networks of other libraries, seen as a body and a linear head, without knowing how they are written.

The last layer is found by looking: a network is run once without memory (on torch's `meta` device), and the linear
layer whose output is the network's output is its head. It is taken out, and what is left gives the features.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from refine.core.errors import UserError
from refine.core.outside import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_SIDE = 16
"""Height and width of the smallest images that all networks take that do not tell a side."""
_SIZE = 2
"""Images that the network is run on; batch normalization of a single one may fail."""


class _Call(NamedTuple):
    place: str
    layer: nn.Module
    given: Any
    out: Any


class _Found(NamedTuple):
    last: str
    """Place of the last layer with weights."""
    is_head: bool
    """Whether that is linear and gives the logits."""


_FOUND: dict[tuple[str, int], _Found] = {}
"""What was found in networks of these names and sides, as looking takes longer than building."""


class Apart(nn.Module):
    """A network of another library: normalized images float [N, 3, side, side] to logits float [N, K].

    Attributes:
        side: height and width of the images that it was built for.
    """

    side: int
    body: nn.Module

    def own_name(self, name: str) -> str:
        """The name here of a tensor that the library's network calls so."""
        return f"body.{name}"


class Split(Apart):
    """One that ends in a linear layer.

    Args:
        body: the network, the identity in the place of its last layer.
        head: that layer.
        place: of that layer in the network.
        side: see `Apart`.
    """

    def __init__(self, body: nn.Module, head: nn.Linear, place: str, side: int) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.place, self.side = place, side

    def features(self, images: Tensor) -> Tensor:
        """Penultimate representation, float [N, D]."""
        features: Tensor = self.body(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits

    def own_name(self, name: str) -> str:
        own = name.removeprefix(f"{self.place}.")
        return f"head.{own}" if own != name and "." not in own else super().own_name(name)


class Whole(Apart):
    """One that ends in another way, and has no `head`.

    Args:
        body: the network.
        last: place in it of the last layer with weights, whose input is taken for features.
        side: see `Apart`.
    """

    def __init__(self, body: nn.Module, last: str, side: int) -> None:
        super().__init__()
        self.body, self.side = body, side
        self._last = last

    def features(self, images: Tensor) -> Tensor:
        """What the last layer gets, averaged over places, float [N, D]."""
        caught: list[Tensor] = []
        layer = self.body.get_submodule(self._last)
        hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            self.body(images)
        finally:
            hook.remove()
        maps = caught[-1]
        places = range(2, maps.dim()) if isinstance(layer, nn.modules.conv._ConvNd) else range(1, maps.dim() - 1)
        return maps.mean(dim=tuple(places)) if len(places) else maps

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        return logits


def side_of(network: nn.Module) -> int:
    """Height and width of images that a network takes: those that it was built for, if it tells them as `side`."""
    return int(getattr(network, "side", LEAST_SIDE))


def apart(network: nn.Module, num_classes: int, side: int, name: str) -> Split | Whole:
    """Takes a freshly built network apart; it becomes a part of what is returned.

    Args:
        network: on any device; nothing is computed on it.
        num_classes: K.
        side: of the images.
        name: of the network with all that its layers depend on beside K and the side; also for error messages.

    Raises:
        UserError: it does not map images of this side to K logits each.
    """
    key = name, side
    if key not in _FOUND:
        _FOUND[key] = _looked_at(network, num_classes, side, name)
    found = _FOUND[key]
    last = network.get_submodule(found.last)
    if not found.is_head:
        return Whole(network, found.last, side)
    network.set_submodule(found.last, nn.Identity())
    return Split(network, last, found.last, side)  # type: ignore[arg-type]


def _looked_at(network: nn.Module, num_classes: int, side: int, name: str) -> _Found:
    calls, logits = _run(network, side, name)
    if not isinstance(logits, Tensor) or logits.shape != (_SIZE, num_classes):
        raise UserError(f"{name} gives no logits of {num_classes} classes, as classifiers do; choose another network")
    last = next(call for call in reversed(calls) if any(True for _ in call.layer.parameters(recurse=False)))
    is_head = (
        isinstance(last.layer, nn.Linear)
        and last.out is logits
        and last.given.shape == (_SIZE, last.layer.in_features)
        and sum(call.layer is last.layer for call in calls) == 1
    )
    return _Found(last.place, is_head)


def _run(network: nn.Module, side: int, name: str) -> tuple[list[_Call], Any]:
    """Runs it without memory: what its layers were given and gave, in the order of their calls, and its own output."""
    calls: list[_Call] = []

    def note(place: str, layer: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        if inputs:
            calls.append(_Call(place, layer, inputs[0], out))

    own = (*network.named_parameters(), *network.named_buffers())
    tensors = {place: tensor.to("meta") for place, tensor in own}
    layers = [(place, layer) for place, layer in network.named_modules() if not [*layer.children()]]
    hooks = [layer.register_forward_hook(partial(note, place)) for place, layer in layers]
    try:
        with torch.no_grad(), _in_eval_mode(network):
            out = functional_call(network, tensors, torch.empty(_SIZE, 3, side, side, device="meta"))
    except Exception as error:  # noqa: BLE001 (what a network does with images of another size is its own affair)
        raise UserError(
            f"{name} does not take images of {side} pixels ({first_line(error)}); choose another side or another "
            "network"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
    return calls, out


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
