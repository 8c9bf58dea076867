"""Kills one process of a running pipeline at random, again and again, and looks for what goes on without it.

    PYTHONPATH=src python tests/kills.py 50        # on this machine, in a folder that is removed again

Each time, DVC runs one stage of a tiny project in one of three ways, and after a moment one process of all that belong
to it is killed: DVC, the shell behind it, the stage, or a process that trains with it. What is still there once DVC has
ended is an orphan. In the end the pipeline runs undisturbed, and has to give what it gave before.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil

from repositories import ALL, ran, repository
from support import PROJECT, environment, tiny_project
from tiny import files_of

MARK = "KILLS_BELONGS_TO"
"""Variable in the environment of all processes of a run."""
WAYS = ("alone", "two processes", "from a list")
TRAINING = ("train-backdoor", "train-refine")
PATIENCE = 120.0
"""Seconds for processes to end; a stage looks ten times a second."""
_PAUSE = 0.05
_LIST = (
    "import os, subprocess, sys; from refine.core import starter; "
    "sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, **starter.mark()}).returncode)"
)


@dataclass
class Found:
    """What was killed, by name, and what was left behind."""

    killed: Counter[str] = field(default_factory=Counter)
    orphans: list[str] = field(default_factory=list)
    same: bool = False


def kill_often(folder: Path, kills: int, seed: int) -> Found:
    """Kills so many processes of a project that is made in an empty folder."""
    project = tiny_project(folder / "project")
    repository(project)
    assert ran(project) == ALL
    before = files_of(project / "models")
    chance, found = random.Random(seed), Found()
    durations: dict[tuple[str, str], float] = {}
    while found.killed.total() < kills:
        stage = chance.choice(ALL[1:])
        way = chance.choice(WAYS if stage in TRAINING else (WAYS[0], WAYS[2]))
        if (stage, way) not in durations:
            began = time.monotonic()
            _run(project, stage, way, None, chance, found)
            durations[stage, way] = time.monotonic() - began
        _run(project, stage, way, durations[stage, way] * chance.random(), chance, found)
    ran(project, "-f")
    found.same = files_of(project / "models") == before and not list(project.rglob("*.partial"))
    return found


def _run(project: Path, stage: str, way: str, moment: float | None, chance: random.Random, found: Found) -> None:
    """Starts a stage, kills one of its processes after so many seconds, and waits until all have ended."""
    mark = uuid4().hex
    more = {"REFINE_PROCESSES": "2"} if way == "two processes" else {}
    command = ["dvc", "repro", "-f", "-s", stage]
    if way == "from a list":
        command = [sys.executable, "-c", _LIST, *command]
        more["PYTHONPATH"] = str(PROJECT / "src")
    killed = "nothing"
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment(**more, **{MARK: mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:
        if moment is not None:
            time.sleep(moment)
            running = [*_of(mark)] if first.poll() is None else []
            if running:
                victim = chance.choice(running)
                name = _name(victim)
                with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                    victim.kill()
                    killed = name
                    found.killed[name] += 1
        late = time.monotonic() + PATIENCE
        while first.poll() is None and time.monotonic() < late:
            time.sleep(_PAUSE)
        late = time.monotonic() + PATIENCE
        while (left := [*_of(mark)]) and first.poll() is not None and time.monotonic() < late:
            time.sleep(_PAUSE)
        found.orphans += [f"{_name(process)} of {stage}, {way}, after {killed} was killed" for process in left]
        for process in left:
            process.kill()


def _of(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def _name(process: psutil.Process) -> str:
    """The script that a process runs, or its program."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return "gone"
    scripts = [Path(word).name for word in words[:3] if word.endswith((".py", "/dvc"))]
    return scripts[0] if scripts else Path(words[0]).name if words else "gone"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python tests/kills.py", description="Kill processes at random.")
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_often(Path(folder), given.kills, given.seed)
    print(
        f"{found.killed.total()} killed: {', '.join(f'{count} {name}' for name, count in found.killed.most_common())}"
    )
    print(f"{len(found.orphans)} orphans{''.join(f'; {orphan}' for orphan in found.orphans)}")
    print(f"the pipeline then gives {'the same as before' if found.same else 'SOMETHING ELSE'}")
    sys.exit(bool(found.orphans) or not found.same)


if __name__ == "__main__":
    main()
