"""Files as an enemy would make them, and the limits under which whatever reads them has to keep.

The mutations begin with something healthy, so that most of what they make passes the first checks.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refine.core.errors import UserError, one_line

MEMORY = 2**30
"""Bytes that may be allocated beside those that are."""
CALLS, BYTES_PER_CALL = 120_000, 4
"""Calls of functions, in Python and out of it: half as many more than a healthy folder needs, and some by its size."""


class Files(dict[str, bytes]):
    """Contents by name, which a failing test does not spell out."""

    def __repr__(self) -> str:
        return f"Files({ {name: len(content) for name, content in self.items()} })"


def fuzzed(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs a test of an argument `random` so many times, and with the same numbers in every run of the suite."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    same = settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=checks)
    return lambda test: same(given(random=st.randoms(use_true_random=True))(test))


def refusal(use: Callable[[], object], folder: Path) -> str | None:
    """Uses what lies in a folder, and gives the sentence by which it is refused; None where it is used.

    Any other error, more than 1 GiB or more work than the folder's size allows fails the test. Nothing in the folder
    may change.
    """
    before, size = sorted(folder.rglob("*")), _size(folder)
    try:
        with limited(CALLS + size // BYTES_PER_CALL):
            use()
    except UserError as error:
        message = str(error)
        assert "\n" not in one_line(message)
        assert "Traceback" not in message
        assert "memory" not in message.lower().replace(str(folder), "")
        assert "; " in message, "what shall be done about it?"
        assert len(message) < 1500 + 2 * len(str(folder)), "nobody reads that"
        return message
    finally:
        assert sorted(folder.rglob("*")) == before
    return None


@contextmanager
def limited(calls: int | None) -> Iterator[None]:
    """Bounds memory by the system and work by counting, which None leaves out: no clock decides."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(None if calls is None else count)
    try:
        yield
    finally:
        sys.setprofile(None)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        assert calls is None or counted < calls, f"{counted} calls"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def written(folder: Path, files: Files) -> Path:
    """Puts files into a folder that is made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    for name, content in files.items():
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


# -- JSON

_ODD = [
    *("null", "true", "[]", "{}", "[[]]", "[0.5, 0.5, 0.5]", '""', "0", "-1", "0.5", "1e999", "NaN", "-Infinity"),
    *("9" * 5000, "[" * 50_000 + "]" * 50_000, '{"a":' * 5000 + "1" + "}" * 5000),
]
_LIKE: dict[type, list[str]] = {
    int: [*map(str, (-1, 0, 1, 2, 3, 4, 5, 8, 16, 64, 1024, 1025, 10**6, 10**9, 10**12, 10**15, 2**63))],
    float: ["-1.0", "0.0", "1e-300", "1e-45", "1e-3", "0.5", "2.0", "1e38", "1e300"],
    str: [
        '"\\ud800"',
        '"../../x"',
        '"\\u0000"',
        '"airbench"',
        '"pixel"',
        '"F64"',
        f'"{"x" * 100_000}"',
        f'"{"0" * 64}"',
    ],
}
"""Values as text, since Python writes neither all of these numbers nor what is so deep: of any type, and of one."""
_MARK = "\ue000"


def json_like(random: Random, healthy: bytes) -> bytes:
    """A healthy JSON object in which one or two places are others."""
    content = json.loads(healthy)
    raw: list[str] = []
    for _ in range(random.choice((1, 1, 2))):
        parent, key = random.choice(list(places(content)))
        change = random.choice(("value", "value", "value", "odd", "remove", "repeat", "add"))
        if change == "remove":
            del parent[key]
        elif change == "repeat" and isinstance(parent, list):
            parent.extend(parent[key : key + 1] * random.randint(1, 3))
        elif change == "add" and isinstance(parent, dict):
            parent[random.choice(("extra", "\n", "x" * 10_000))] = 1
        else:
            raw.append(random.choice(_LIKE.get(type(parent[key]), _ODD) if change == "value" else _ODD))
            parent[key] = f"{_MARK}{len(raw) - 1}{_MARK}"
    text = json.dumps(content)
    for number, value in enumerate(raw):
        text = text.replace(json.dumps(f"{_MARK}{number}{_MARK}"), value)
    return text.encode()


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested mappings and lists: what holds it, and its key there."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from places(content[key])


# -- bytes

_NUMBERS = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**27, 2**31 - 1, 2**32 - 1)


def bytes_like(random: Random, healthy: bytes, places: int = 2**30) -> bytes:
    """Healthy bytes, changed at up to three of the first places, or cut, or grown."""
    data = bytearray(healthy)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(max(1, min(len(data), places)))
        change = random.choice(("byte", "byte", "number", "number", "cut", "repeat", "grow"))
        if change == "byte":
            data[place : place + 1] = bytes([random.randrange(256)])
        elif change == "number":
            width = random.choice((2, 4))
            number = random.choice(_NUMBERS) % 256**width
            data[place : place + width] = number.to_bytes(width, "big" if random.random() < 0.5 else "little")
        elif change == "cut":
            del data[place:]
        elif change == "repeat":
            data[place:place] = data[place : place + random.randint(1, 600)]
        else:
            data += bytes(random.randint(1, 5000))
    return bytes(data)
