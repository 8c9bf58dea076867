"""Tensors on disk: safetensors files without metadata (equal tensors give equal bytes), checked before use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from refine.core.errors import UserError
from refine.core.files import sha256_of

_LONGEST = 200

Shapes = Mapping[str, Sequence[int]]


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Writes tensors and returns the SHA-256 of the file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    return sha256_of(path)


def load_tensors(path: Path, sha256: str, remedy: str, expected: Shapes | None = None) -> dict[str, Tensor]:
    """Reads a file after checking its SHA-256.

    Args:
        path: of the file.
        sha256: expected SHA-256 of the file.
        remedy: ends every error message.
        expected: names and shapes, compared with the header before any tensor is read; None accepts all.

    Raises:
        UserError: the file is missing, changed, not a safetensors file, or holds other tensors.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    if sha256_of(path) != sha256:
        raise UserError(f"{path} is not the file that its description names (sha256 differs); {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if expected is not None:
                refuse_other(path, expected, {name: file.get_slice(name).get_shape() for name in names})
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file ({str(error)[:_LONGEST]}); {remedy}") from None


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """The shape of each tensor."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def refuse_other(path: Path, expected: Shapes, found: Shapes) -> None:
    """Compares the names and shapes in a file with the expected ones.

    Raises:
        UserError: names or shapes differ.
    """
    odd = set(expected) ^ set(found) or {name for name in expected if tuple(expected[name]) != tuple(found[name])}
    if odd:
        raise other(path, min(odd))


def other(path: Path, name: str) -> UserError:
    """The error for a file in which this tensor does not fit."""
    return UserError(
        f"{path} does not fit the architecture in its card (first difference: {name[:_LONGEST]}); "
        "correct the card or provide the matching weights"
    )
