"""The processes that a stage works for. When one of them is gone, nobody would record what the stage makes.

They are its parent, DVC behind the shell in which DVC starts it, and what an environment variable names: a list of
runs, which starts DVC.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread

import psutil

NAME = "_REFINE_STARTER"
"""Number and start of a process, by which a stage knows that it is gone even where its number is given again."""
SENTENCE = "the process that started this stage is gone; `dvc repro` runs it again, from its last checkpoint"

_SHELLS = {"ash", "bash", "dash", "fish", "ksh", "sh", "zsh"}
_PAUSE = 0.1
_CLOCK = 0.01
"""Seconds by which two readings of a process's start may differ."""

_gone = Event()


def mark() -> dict[str, str]:
    """The variable that makes stages below this process end with it."""
    return {NAME: f"{os.getpid()} {psutil.Process().create_time():.2f}"}


def gone() -> bool:
    """Whether one of the processes that are watched is gone."""
    return _gone.is_set()


def watch(left: Callable[[], None]) -> None:
    """Has a function called, in a thread of its own, once one of the processes is gone."""
    Thread(target=_watch, args=(os.getppid(), list(_above()), left), daemon=True).start()


def alive(of: str) -> bool:
    """Whether the process that `mark` named still lives; what names none counts as living."""
    number, _, start = of.partition(" ")
    try:
        process = psutil.Process(int(number))
        same = abs(process.create_time() - float(start)) < _CLOCK
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except (ValueError, psutil.AccessDenied):
        return True


def _above() -> Iterator[str]:
    """Further processes than the parent, as `mark` names them."""
    if NAME in os.environ:
        yield os.environ[NAME]
    if "DVC_STAGE" not in os.environ:
        return
    try:
        parent = psutil.Process().parent()
        starter = parent.parent() if parent and parent.name() in _SHELLS else None
        if starter is not None:
            yield f"{starter.pid} {starter.create_time():.2f}"
    except psutil.Error:
        return


def _watch(parent: int, above: list[str], left: Callable[[], None]) -> None:
    while os.getppid() == parent and all(map(alive, above)):
        time.sleep(_PAUSE)
    _gone.set()
    left()
