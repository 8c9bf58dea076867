"""Kills one process of a running pipeline at random, again and again, and looks for what goes on without it.

    python tests/kills.py 50        # on this machine, in a folder that is removed again

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
    chance, found, longest = random.Random(seed), Found(), 1.0
    while found.killed.total() < kills:
        stage = chance.choice(ALL[1:])
        way = chance.choice(WAYS if stage in TRAINING else (WAYS[0], WAYS[2]))
        began = time.monotonic()
        name = _killed(project, stage, way, longest * chance.random(), chance, found.orphans)
        if name is None:  # it had ended before its moment came
            longest = time.monotonic() - began
            continue
        longest = max(longest, time.monotonic() - began)
        found.killed[name] += 1
    ran(project, "-f")
    found.same = files_of(project / "models") == before and not list(project.rglob("*.partial"))
    return found


def _killed(
    project: Path, stage: str, way: str, moment: float, chance: random.Random, orphans: list[str]
) -> str | None:
    """Starts a stage, kills one of its processes after a moment, and waits until all have ended.

    Returns:
        The name of what was killed; None if nothing was left to kill.
    """
    mark = uuid4().hex
    more = {"REFINE_PROCESSES": "2"} if way == "two processes" else {}
    command = ["dvc", "repro", "-f", "-s", stage]
    if way == "from a list":
        command = [sys.executable, "-c", _LIST, *command]
        more["PYTHONPATH"] = str(PROJECT / "src")
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment(**more, **{MARK: mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:
        time.sleep(moment)
        running = [process for process in _of(mark) if first.poll() is None]
        name = None
        if running:
            victim = chance.choice(running)
            name = _name(victim)
            victim.kill()
        first.wait(PATIENCE)
    late = time.monotonic() + PATIENCE
    while (left := list(_of(mark))) and time.monotonic() < late:
        time.sleep(_PAUSE)
    orphans += [f"{_name(process)} of {stage}, {way}, after {name} was killed" for process in left]
    for process in left:
        process.kill()
    return name


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
    sys.path[:0] = [str(PROJECT / "src"), str(PROJECT / "tests")]
    main()
