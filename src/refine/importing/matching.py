"""Giving the tensors of a file their names in our network, and telling why they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refine.core.errors import UserError
from refine.core.yaml12 import cut

Build = Callable[[int], nn.Module]
"""Builds a network of so many classes."""

_PREFIXES = ("module.", "_orig_mod.")
"""Of DataParallel and of torch.compile."""
_AUXILIARY = ("AuxLogits", "aux1", "aux2")
"""Further outputs of torchvision's Inception and GoogLeNet, which only training uses."""
_COUNTER = "num_batches_tracked"


def without_prefixes(state: Mapping[str, Tensor], expected: Sequence[str]) -> dict[str, Tensor]:
    """The state without what wrappers put before all names; `expected` are the names that a network has."""
    found = dict(state)
    firsts = {name.partition(".")[0] for name in expected}
    while found:
        first = {name.partition(".")[0] for name in found}
        prefix = f"{next(iter(first))}." if len(first) == 1 else ""
        if not prefix or (prefix not in _PREFIXES and prefix[:-1] in firsts) or not all("." in name for name in found):
            return found
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def renamed(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state under the names of our network, which may be one of a library that was taken apart, as float32."""
    own = getattr(network, "own_name", str)
    named = {own(name): tensor for name, tensor in state.items() if name.partition(".")[0] not in _AUXILIARY}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in named.items()}


def library_names(network: nn.Module) -> dict[str, str]:
    """Our names of a network's tensors, and those that they have in its library."""
    place = getattr(network, "place", None)
    names = {}
    for name in network.state_dict():
        first, _, rest = name.partition(".")
        is_head = place is not None and first == "head"
        names[name] = f"{place}.{rest}" if is_head else rest if hasattr(network, "own_name") else name
    return names


def class_count(build: Build, state: Mapping[str, Tensor], path: Path, name: str) -> int:
    """K, read from the first tensor whose size depends on it.

    Raises:
        UserError: the file has no such tensor.
    """
    with torch.device("meta"):
        two, three = build(2), build(3)
    names = library_names(two)
    found = renamed(without_prefixes(state, list(names.values())), two)
    larger = three.state_dict()
    for own, tensor in two.state_dict().items():
        for dim, (size, more) in enumerate(zip(tensor.shape, larger[own].shape, strict=True)):
            if size != more and own in found and found[own].dim() == tensor.dim():
                classes: int = 2 + (found[own].shape[dim] - size) // (more - size)
                if classes >= 2:
                    return classes
    last = next(names[own] for own, tensor in two.state_dict().items() if tensor.shape != larger[own].shape)
    raise UserError(
        f"{path} has no last layer {last} of {name}, its tensors are called {_listed(state)}; "
        "give the architecture that it was trained as"
    )


def misfit(state: Mapping[str, Tensor], network: nn.Module, path: Path, name: str) -> str | None:
    """Why a state does not fit a network, in one sentence; None where it does.

    Args:
        state: under our names.
        network: ours.
        path: of the file.
        name: of the network.
    """
    expected, names = network.state_dict(), library_names(network)
    missing = [own for own in expected if own not in state and not own.endswith(_COUNTER)]
    unknown = [own for own in state if own not in expected]
    shaped = [own for own in expected if own in state and state[own].shape != expected[own].shape]
    another = "give the architecture that it was trained as"
    if missing and unknown:
        theirs = f"{cut(_theirs(unknown[0]))}{_more(unknown)}"
        return f"{path} has no {names[missing[0]]}{_more(missing)} of {name}, but {theirs}; {another}"
    if missing:
        return f"{path} has no {names[missing[0]]}{_more(missing)} of {name}; it is a part of a network or another one"
    if shaped:
        own = shaped[0]
        sizes = f"is {[*state[own].shape]}, in {name} it is {[*expected[own].shape]}"
        return f"{path}: {names[own]} {sizes}; {_cause(names[own])}"
    if unknown:
        return f"{path} also has {cut(_theirs(unknown[0]))}{_more(unknown)}, which {name} lacks; {another}"
    return None


def completed(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state with counters of batches, which nothing uses and old files lack, and without torch's own remarks."""
    own = network.state_dict()
    return {name: state.get(name, torch.zeros_like(tensor, device="cpu")) for name, tensor in own.items()}


def _theirs(own: str) -> str:
    return own.removeprefix("body.")


def _cause(name: str) -> str:
    if "pos_embed" in name or "relative_position" in name:
        return "give the side of its images by --input-side"
    return "give the architecture in the size that it was trained in"


def _more(names: Sequence[Any]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _listed(state: Mapping[str, Tensor]) -> str:
    names = sorted(state)
    return cut(", ".join(names[:3])) + (", ..." if len(names) > 3 else "")
