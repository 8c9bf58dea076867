"""Tensors on disk: safetensors without metadata (equal tensors give equal bytes), checked before use."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from refine.system.errors import UserError
from refine.system.files import sha256_of


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Writes tensors and returns the SHA-256 of the file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    return sha256_of(path)


def load_tensors(path: Path, sha256: str, remedy: str) -> dict[str, Tensor]:
    """Reads a file after checking its sum.

    Raises:
        UserError: it is missing, changed, or no safetensors file; the sentence ends with the remedy.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    if sha256_of(path) != sha256:
        raise UserError(f"{path} is not the file that was described beside it (sha256 differs); {remedy}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file ({error}); {remedy}") from None
