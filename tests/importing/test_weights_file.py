"""Weights are read in every form that training scripts write them in, and nothing in their files is ever run."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from refine.core.errors import UserError
from refine.importing.weights_file import read
from tiny import same_tensors

STATE = OrderedDict({"layer.weight": torch.arange(6.0).view(2, 3), "layer.bias": torch.ones(2)})


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _whole(path: Path) -> None:
    torch.save(nn.Linear(3, 2), path)


def _script(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(3, 2)), path)


def _exported(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), path)


def _compressed(path: Path) -> None:
    torch.save(dict(STATE), path)
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}, "lr": 0.1}},
        lambda state: {"model": state, "args": {"lr": 0.1}},
        lambda state: {"net": {"state_dict": state}, "acc": 93.1},
        lambda state: {"of my own": state},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_is_found_wherever_a_training_put_it(
    wrapped: Callable[[Any], Any], legacy: bool, tmp_path: Path
) -> None:
    path = tmp_path / "vendor.pth"
    torch.save(wrapped(STATE), path, _use_new_zipfile_serialization=not legacy)
    assert same_tensors(read(path), dict(STATE))


def test_safetensors_are_read_whatever_they_are_called(tmp_path: Path) -> None:
    save_file(dict(STATE), tmp_path / "vendor.bin")
    assert same_tensors(read(tmp_path / "vendor.bin"), dict(STATE))


def test_parameters_are_read_as_tensors(tmp_path: Path) -> None:
    torch.save({name: nn.Parameter(tensor) for name, tensor in STATE.items()}, tmp_path / "vendor.pt")
    found = read(tmp_path / "vendor.pt")
    assert same_tensors(found, dict(STATE))
    assert not any(tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("protocol", ["zip", "legacy", "plain pickle"])
def test_a_malicious_file_is_refused_and_runs_nothing(protocol: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "it ran"
    content = {"state_dict": STATE, "more": Evil(mark)}
    if protocol == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(UserError, match=r"evil\.pth (holds more than weights|is neither).*torch\.save") as refused:
        read(path)
    assert not mark.exists()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        (_whole, "model.pth", r"holds more than weights, such as torch\.nn\.modules\.linear\.Linear, and reading that"),
        (_script, "model.pt", "is a TorchScript program"),
        (_exported, "model.pt2", r"is a program of torch\.export"),
        (_compressed, "model.pth", "is compressed"),
        (
            lambda path: path.write_bytes(b"no weights at all"),
            "model.pth",
            "is neither a PyTorch file",
        ),
        (lambda path: path.write_bytes(b""), "model.pth", "is neither a PyTorch file"),
        (lambda path: torch.save([1, 2], path), "model.pth", "holds no state of a network but list"),
        (lambda path: torch.save({"epoch": 3}, path), "model.pth", "holds no state of a network but epoch"),
        (lambda path: torch.save({"a": {"b": 1}, "c": {"d": 2}}, path), "model.pth", "but a, c"),
    ],
)
def test_what_holds_no_weights_is_refused_with_the_remedy(
    make: Callable[[Path], object], name: str, said: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(UserError, match=rf"{said}.*; ask its maker for the weights alone"):
        read(tmp_path / name)


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(dict(STATE), path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged .*; copy it again"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth is missing"):
        read(tmp_path / "none.pth")


def test_every_beginning_of_a_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "vendor.pth"
    torch.save(STATE, path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="vendor"):
            read(path)
