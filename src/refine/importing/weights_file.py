"""Files of weights from anybody: PyTorch state dicts in both of its formats, and safetensors. Nothing is unpickled.

A pickle can run any program when it is read. `torch.load(weights_only=True)` reads tensors and plain containers alone
and refuses everything else, which is the only gate here.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from refine.core.errors import UserError

REMEDY = (
    "ask its maker for the weights alone, written by `torch.save(model.state_dict(), 'weights.pth')` or as safetensors"
)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")
"""Under which training scripts put the state of the network into a checkpoint."""
_DEPTH = 3
_LONGEST = 200
_NAMED = re.compile(r"GLOBAL ([\w.]{1,100})")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a network's state by their names, on the CPU.

    Raises:
        UserError: the file is missing, of another format, or holds anything but weights.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; give a file of weights")
    if _is_safetensors(path):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged ({str(error)[:_LONGEST]}); copy it again") from None
    _refuse_programs(path)
    return _tensors(path, _loaded(path))


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a JSON header, and the header with a brace."""
    with path.open("rb") as file:
        begin = file.read(9)
    return len(begin) == 9 and begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < path.stat().st_size


def _refuse_programs(path: Path) -> None:
    """Refuses what holds a network along with its weights, which can only be run as it is or not at all."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = {entry.filename.partition("/")[2] or entry.filename for entry in entries}
    if "constants.pkl" in names:
        raise UserError(f"{path} is a TorchScript program, which is not run here; {REMEDY}")
    if "data.pkl" not in names:
        what = "a program of torch.export" if path.suffix.lower() == ".pt2" else "an archive of something else"
        raise UserError(f"{path} is {what}, which is not read here; {REMEDY}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{path} is compressed, as torch does not write it; {REMEDY}")


def _loaded(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles of other protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (a damaged pickle raises whatever its reader stumbles over)
        named = _NAMED.search(str(error))
        if named:
            what = f"holds more than weights, such as {named[1]}, and reading that could run any program"
            raise UserError(f"{path} {what}; {REMEDY}") from None
        raise UserError(f"{path} is neither a PyTorch file of weights alone nor safetensors; {REMEDY}") from None


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """The state within a checkpoint; whatever else a training kept beside it is left out."""
    for _ in range(_DEPTH):
        if not isinstance(content, dict):
            break
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        inner = {str(name): value for name, value in content.items() if isinstance(value, dict) and value}
        wrapper = next((name for name in _WRAPPERS if name in inner), None)
        if wrapper is None and len(inner) == 1 and not tensors:
            wrapper = next(iter(inner))
        if wrapper is None:
            if tensors:
                return {name: _plain(path, name, tensor) for name, tensor in tensors.items()}
            break
        content = inner[wrapper]
    held = ", ".join(sorted(map(str, content))[:10])[:_LONGEST] if isinstance(content, dict) else type(content).__name__
    raise UserError(f"{path} holds no state of a network but {held or 'nothing'}; {REMEDY}")


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        raise UserError(f"{path} holds {name[:_LONGEST]} in a form that is not supported; {REMEDY}")
    return tensor.detach()
