"""Runtime records of a finished run: device, time and versions of each stage that was computed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refine.core.files import read_json, sha256_of
from refine_lab import projects


def runtime(project: Path, last: str) -> dict[str, dict[str, Any]]:
    """The records of a stage and of those before it whose outputs are still there, by the stages' names.

    Other outputs came from the cache, computed who knows where.

    Args:
        project: its root.
        last: name of the stage.
    """
    kept = {}
    needed = projects.upstream(project, last)
    for path in sorted((project / projects.RUNTIME).glob("*.json")):
        record = read_json(path, "run `dvc repro -f`")
        stage, result = record.pop("stage"), record.pop("result", None)
        if stage in needed and result and _is_there(project / result["path"], result["sha256"]):
            del record["started_unix"]
            kept[stage] = record
    return kept


def _is_there(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256
