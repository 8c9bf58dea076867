"""Outputs of recorded runs, from DVC's cache."""

from __future__ import annotations

from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile import load
from dvc_data.hashfile.checkout import CheckoutError, checkout
from dvc_data.hashfile.hash_info import HashInfo

from refine.core.errors import UserError
from refine_lab.runs.recorded import Run


def from_cache(home: Path, run: Run, path: Path, folder: Path) -> Path:
    """Brings an output of a recorded run into a folder, from the cache of the project that keeps the runs.

    Args:
        home: of the recorded runs.
        run: one of them.
        path: of the output, in the project that computed it.
        folder: takes it.

    Raises:
        UserError: the cache does not hold it any more.
    """
    target = folder / path.name
    try:
        with Repo(Repo.find_root(str(home))) as repo:
            cache = repo.cache.local
            content = load(cache, HashInfo("md5", run.record.outputs[path.as_posix()]))
            checkout(str(target), cache.fs, content, cache, quiet=True)
    except (OSError, CheckoutError):
        raise UserError(
            f"{path} of the run {run.folder.name} is not in DVC's cache; remove its folder and record it again"
        ) from None
    return target
