"""What lies outside the code is told in one sentence; a fault of the code keeps its traceback."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from refine.core import outside
from refine.core.errors import command
from support import environment

HUGE = 10**15


def caught(work: Callable[[], object]) -> Exception:
    """The error that some work ends with, and its traceback."""
    try:
        work()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("it ended well")


@pytest.mark.parametrize(
    ("work", "size"),
    [
        (lambda: torch.empty(HUGE), " (4000000000000000 bytes were asked for)"),
        (lambda: np.empty(HUGE), " (7.11 PiB were asked for)"),
        (lambda: bytes(HUGE), ""),
    ],
    ids=["torch", "numpy", "python"],
)
def test_missing_memory_is_reported_with_a_remedy(work: Callable[[], object], size: str) -> None:
    message = outside.explained(caught(work))
    assert message is not None
    assert message.startswith(f"the memory is used up{size}; lower batch_size")
    assert "REFINE_MEMORY" in message


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB.",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        "RuntimeError: [enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "std::bad_alloc",
        "unable to mmap 9 bytes from file </torch_1>: Cannot allocate memory (12)",
    ],
)
def test_torch_says_it_in_many_ways(text: str) -> None:
    message = outside.explained(torch.OutOfMemoryError(text) if text.startswith("CUDA out") else RuntimeError(text))
    assert message is not None
    assert message.startswith("the memory is used up")
    assert "\n" not in message
    assert ("2.00 GiB were asked for" in message) == ("2.00 GiB" in text)


def test_the_system_may_have_no_memory_for_a_process() -> None:
    message = outside.explained(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert message is not None
    assert message.startswith("the memory is used up")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EROFS, "the file system is read-only while writing data/raw (text); work in a copy"),
        (errno.EACCES, "there is no permission for data/raw (text); give it"),
        (errno.EPERM, "there is no permission for data/raw (text); give it"),
        (errno.ENOSPC, "the disk is full while writing data/raw (text); free some space"),
    ],
)
def test_files_that_cannot_be_written_are_named(code: int, message: str) -> None:
    found = outside.explained(OSError(code, "text", "data/raw"))
    assert found is not None
    assert found.startswith(message)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("not enough memory of words"),
        RuntimeError("shapes [3, 4] and [5, 6] cannot be multiplied"),
        OSError(errno.ENOTDIR, "not a directory", "x"),
        ImportError("cannot import name 'a' from 'refine.b'", name="refine.b"),
        ModuleNotFoundError("No module named 'refine.c'", name="refine.c"),
        ImportError("a fault without a name"),
        KeyError("x"),
    ],
)
def test_a_bug_in_the_code_is_not_explained(error: Exception) -> None:
    assert outside.explained(error) is None


PACKAGES = {
    "missing library": ("import _fast", "_fast.py", "raise OSError('libcudart.so.13: cannot open shared object file')"),
    "own import": ("import _fast", "_fast.py", "raise ImportError('libtorch_cpu.so: undefined symbol')"),
    "at the top": ("raise OSError('libgomp.so.1: failed to map segment')", "_fast.py", ""),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_cannot_be_loaded_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, file, content = PACKAGES[name]
    package = tmp_path / "torchlike"
    package.mkdir()
    (package / "__init__.py").write_text(top.replace("import _fast", "from torchlike import _fast"))
    (package / file).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    message = outside.explained(caught(lambda: __import__("torchlike")))
    sys.modules.pop("torchlike", None)
    assert message is not None
    assert message.startswith("the package torchlike cannot be loaded here (lib")
    assert "; install the project again" in message


def test_a_package_that_is_not_there_is_named() -> None:
    message = outside.explained(caught(lambda: __import__("no_such_package")))
    assert message == (
        "the package no_such_package cannot be loaded here (No module named 'no_such_package'); "
        "install the project again (README) in an environment of its own"
    )


@pytest.mark.parametrize("broken", ["raise OSError('libtorch.so: cannot open')", "raise ImportError('libtorch.so')"])
def test_a_stage_says_that_torch_cannot_be_loaded(project: Path, tmp_path: Path, broken: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(broken)
    ended = subprocess.run(
        [sys.executable, "stages/evaluate.py"],
        cwd=project,
        env=environment(PYTHONPATH=f"{tmp_path}:src"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: evaluate: the package torch cannot be loaded here (libtorch.so")
    assert ended.stderr.count("\n") == 1


def test_a_command_reports_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(errno.EROFS, "Read-only file system", "metrics/runs.csv")

    with pytest.raises(SystemExit, match=r"^error: the file system is read-only while writing metrics/runs\.csv"):
        command(full)
    with pytest.raises(KeyError):
        command(lambda: {}["a fault of the code"])
