"""The processes that a stage works for. When one of them is gone, nobody would record what the stage makes.

They are its parent, DVC behind the shell in which DVC starts it, and what an environment variable names: a list of
runs, which starts DVC.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Thread

import psutil

NAME = "_REFINE_STARTER"
"""Number and start of a process, by which a stage knows that it is gone even where its number is given again."""
SENTENCE = "the process that started this stage is gone; `dvc repro` runs it again, from its last checkpoint"

_SHELLS = {"ash", "bash", "dash", "fish", "ksh", "sh", "zsh"}
_PAUSE = 0.1
_CLOCK = 60.0
"""Seconds by which two readings of a process's start may differ, as the clock may be set between them. A number is not
given again so soon."""

_watched: list[Callable[[], bool]] = []
"""Whether each of the processes still lives."""


def mark() -> dict[str, str]:
    """The variable that makes stages below this process end with it."""
    return {NAME: f"{os.getpid()} {psutil.Process().create_time():.2f}"}


def gone() -> bool:
    """Whether one of the processes that are watched is gone by now."""
    return not all(lives() for lives in _watched)


def watch(left: Callable[[], None]) -> None:
    """Has a function called, in a thread of its own, once one of the processes is gone."""
    parent = os.getppid()
    _watched[:] = [lambda: os.getppid() == parent, *(partial(_lives, process) for process in _above())]
    if NAME in os.environ:
        named = os.environ[NAME]
        _watched.append(lambda: alive(named))
    Thread(target=_watch, args=(left,), daemon=True).start()


def alive(of: str) -> bool:
    """Whether the process that `mark` named still lives; what names none counts as living."""
    number, _, start = of.partition(" ")
    try:
        process = psutil.Process(int(number))
        return abs(process.create_time() - float(start)) < _CLOCK and _lives(process)
    except psutil.NoSuchProcess:
        return False
    except (ValueError, psutil.AccessDenied):
        return True


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _above() -> Iterator[psutil.Process]:
    """DVC, where a shell stands between it and this stage."""
    if "DVC_STAGE" not in os.environ:
        return
    try:
        parent = psutil.Process().parent()
        starter = parent.parent() if parent and parent.name() in _SHELLS else None
        if starter is not None:
            yield starter
    except psutil.Error:
        return


def _watch(left: Callable[[], None]) -> None:
    while not gone():
        time.sleep(_PAUSE)
    left()
