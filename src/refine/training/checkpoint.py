"""Checkpoints of a training run: written after each epoch, found again by the same run only, gone on success.

They are kept outside of the outputs, because DVC deletes a stage's outputs before it runs. The key of a run is a hash
of everything that its result depends on, so that no other run takes its checkpoints.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import torch

from refine.core import starter
from refine.core.errors import UserError
from refine.core.files import sha256_of, write_durably
from refine.core.registry import ARCHITECTURES, names
from refine.models.device import Compute
from refine.shards.format.manifest import NAME as MANIFEST
from refine.training.clock import Clock
from refine.training.processes import Processes

log = logging.getLogger(__name__)

LOCK = "lock"
KEPT = 2
_DIGEST = 64
_EPOCHS = "epoch-*.ckpt"

State = dict[str, Any]


def run_key(params: dict[str, Any], numerics: dict[str, Any], inputs: Mapping[str, Path]) -> str:
    """Hash of a run: its parameters, how the machine computes it, and the contents of its inputs.

    A folder of shards counts by its manifest, which has the sums of the shards; these are checked when they are read.

    Args:
        params: all of its parameters.
        numerics: what else decides the bytes of the result, such as precision and device type.
        inputs: files and folders of code and data, by names that do not depend on where they are.
    """
    digest = hashlib.sha256(json.dumps([params, numerics, torch.__version__], sort_keys=True).encode())
    for name, path in sorted(inputs.items()):
        manifest = path / MANIFEST
        for file in [manifest] if manifest.is_file() else [path, *sorted(path.rglob("*"))]:
            if file.is_file():
                digest.update(f"{name} {file.relative_to(path)} {sha256_of(file)}\n".encode())
    return digest.hexdigest()[:16]


def _code() -> dict[str, Path]:
    """The loaded modules of this package, and all architectures, since a model card may name any of them."""
    package = __name__.partition(".")[0]
    loaded = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    own = {name: Path(file) for name, file in loaded.items() if file and name.partition(".")[0] == package}
    choices = [f"{ARCHITECTURES}.{name}.{part}" for name in names(ARCHITECTURES) for part in ("params", "network")]
    specs = {name: find_spec(name) for name in [*choices, "refine.models.apart"]}  # which some networks need
    return own | {name: Path(str(spec and spec.origin)) for name, spec in specs.items()}


class Checkpoints:
    """The checkpoints of one run, held by one process at a time.

    Args:
        folder: of this run alone, or of a part of it.
        clock: of the run that this is a part of.
    """

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.folder = folder
        self.clock = clock or Clock()
        self._aside: dict[str, str] = {}
        self._dropped: set[str] = set()

    def save(self, epoch: int, state: State) -> None:
        """Writes the state after an epoch; it is whole on the disk or not there. Only the last two stay.

        `state["kept"]`, tensors by name that a run keeps, goes into files of its own: each is written once and not in
        every epoch again, and goes when no checkpoint names it any more.
        """
        kept = state["kept"]
        for name in kept.keys() - self._aside.keys():
            content = _packed(kept[name])
            write_durably(self._place(name), content)
            self._aside[name] = hashlib.sha256(content).hexdigest()
        dropped = self._aside.keys() - kept.keys()
        self._aside = {name: self._aside[name] for name in kept}
        content = _packed({**state, "kept": self._aside, "seconds": self.clock.seconds})
        digest = hashlib.sha256(content).hexdigest().encode()
        write_durably(self.folder / f"epoch-{epoch:06d}.ckpt", digest + content)
        for old in self._paths()[:-KEPT]:
            old.unlink()
        for name in self._dropped - kept.keys():
            self._place(name).unlink(missing_ok=True)
        self._dropped = dropped  # the one checkpoint that stays beside this one still names them

    def load(self) -> State | None:
        """The newest whole state, on the CPU, or None where there is none; damaged ones are named and passed over."""
        for path in reversed(self._paths()):
            try:
                state: State = _unpacked(*_halves(path.read_bytes()))
                self._aside = state["kept"]
                self.clock.earlier = max(self.clock.earlier, state.pop("seconds"))
                state["kept"] = {name: self._kept(name, digest) for name, digest in self._aside.items()}
            except ValueError as error:
                log.warning("checkpoint %s is damaged (%s); the one before it is used", path, error)
                continue
            return state
        self._aside = {}
        return None

    @property
    def empty(self) -> bool:
        """Whether no epoch was finished yet, in no part."""
        return not any(self.folder.rglob(_EPOCHS))

    @property
    def epochs(self) -> int:
        """Finished epochs that could be gone on from."""
        return max((int(path.stem.partition("-")[2]) for path in self._paths()), default=0)

    def part(self, name: str) -> Checkpoints:
        """Those of a training that this run begins with; they go when the run's go."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Checkpoints(folder, self.clock)

    def remove(self) -> None:
        """Removes the run's folder; its outputs are whole."""
        shutil.rmtree(self.folder)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(_EPOCHS))

    def _place(self, name: str) -> Path:
        return self.folder / f"kept-{name}.pt"

    def _kept(self, name: str, digest: str) -> State:
        path = self._place(name)
        return _unpacked(digest, path.read_bytes() if path.is_file() else b"")


def _packed(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _halves(data: bytes) -> tuple[str, bytes]:
    return data[:_DIGEST].decode("ascii", "replace"), data[_DIGEST:]


def _unpacked(digest: str, content: bytes) -> State:
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("its sha256 differs")
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def hold(folder: Path) -> IO[str]:
    """Opens the lock of a run's folder, and holds it until the file is closed.

    Raises:
        FileNotFoundError: there is no such folder.
        UserError: another process holds it.
    """
    lock = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with lock:
            lock.seek(0)
            raise UserError(
                f"process {lock.read().strip() or '(starting)'} is training this very run; "
                "wait until it ends, or stop it and type the command again"
            ) from None
    return lock


def _begun(folder: Path) -> IO[str]:
    """Makes a run's folder if it is not there, and holds its lock."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = hold(folder)
        except FileNotFoundError:
            continue
        if os.fstat(lock.fileno()).st_nlink:  # 0 where the run before has just ended and removed it
            return lock
        lock.close()


@contextmanager
def checkpoints(
    home: Path, name: str, params: dict[str, Any], precision: str, inputs: Sequence[Path], compute: Compute
) -> Iterator[Checkpoints | None]:
    """Takes hold of a run's checkpoints, and removes them when the block ends without an error.

    They stay where the process that started this one is gone: nobody will record the outputs, and DVC, which then
    deletes them, gets them again without training.

    Args:
        home: folder for the checkpoints of all runs.
        name: of the training.
        params: all of its parameters.
        precision: resolved.
        inputs: files and folders that it reads; the code that is loaded by now is added to them.
        compute: of this process; of several that train together the first alone has checkpoints.

    Raises:
        UserError: another process trains this very run, or processes that train together have other inputs.
    """
    numerics = {"precision": precision, "device": compute.device.type, "processes": compute.world}
    key = run_key(params, numerics, {**_code(), **{str(place): path for place, path in enumerate(inputs)}})
    Processes(compute).agree(key)
    if compute.rank:
        yield None
        return
    run = Checkpoints(home / f"{name}-{key}")
    with _begun(run.folder) as lock:
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        parent = os.getppid()
        try:
            yield run
        except BaseException:
            if run.empty:
                run.remove()
            raise
        if os.getppid() == parent and not starter.gone():
            run.remove()


def runtime(compute: Compute, precision: str, kept: Checkpoints | None) -> dict[str, Any]:
    """Entries of a training stage in its runtime record, with the seconds of interrupted processes before it."""
    return {**compute.runtime, "precision": precision, "earlier_seconds": kept.clock.earlier if kept else 0.0}
