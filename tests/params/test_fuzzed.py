"""Two thousand parameters files by accident and by malice: each passes the check, or is refused in one sentence."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml

from hostile import bytes_like, fuzzed, limited, places
from refine.command.parameters import check
from refine.core.errors import UserError, one_line
from refine.core.registry import DEFENSES, SPLITS, component, names
from support import TINY_PARAMS

CALLS, CALLS_PER_BYTE = 40_000, 50
"""Calls of functions, in Python and out of it: those that any file needs, and more for a larger one. Counting takes
longer than what is counted, so it is done for some of the files."""

LIKE: dict[type, list[str]] = {
    int: [*map(str, (-1, 0, 1, 2, 7, 8, 64, 1024, 1025, 2**16, 10**6, 2**31, 2**62, 10**30, 10**59)), "1.0", "'3'"],
    float: ["-1.0", "-0.0", "5e-324", "1e-3", "'1e-3'", "0.5", "1", "2.0", "1e6", "1e308", "1e999", ".inf", ".nan"],
    str: ["''", "badnets", "'../x'", '"\\0"', '"\\uD800"', f"'{'x' * 10_000}'", "paper", "adamw", "none", "true"],
    bool: ["true", "false", "yes", "1"],
}
ODD = [
    *(
        "~",
        "[]",
        "{}",
        "[1, a]",
        "{1: 2}",
        "{? [] : 1}",
        "'1_000'",
        "'\u0660.\u0661'",
        "1:30",
        "2001-01-01",
        "*a",
        "*b",
    ),
    *("&a [*a]", "&b {k: *a}", "!!python/object:os.system x", "!!timestamp x", "!!binary x", "! 1", "@", "%", "`x`"),
    *("9" * 5000, f"0x{'f' * 5000}", "[" * 3000 + "]" * 3000, "{a: " * 40 + "1" + "}" * 40, f"[{'0, ' * 99}1]"),
    '"\\UFFFFFFFF"',
]
"""Values as text, since Python does not write all of them: like those of a type, and of none."""
TOKENS = [
    *(
        "&a ",
        "*a",
        "<<: *a\n",
        "<<: [*a, *a]\n",
        "!!str ",
        "? ",
        "- ",
        ": ",
        "[",
        "]",
        "{",
        "}",
        "|\n",
        ">-\n",
        "'",
        '"',
    ),
    *("\n", "\t", "# ", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", ", ", "\\", "\ufeff", "\x85", "\u2028", "\x00"),
]
MARK = "\ue000"
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def test_each_of_two_thousand_files_passes_or_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    counts: Counter[str] = Counter()

    @fuzzed(2000)
    def try_one(random: Random) -> None:
        way = random.choice(WAYS)
        path.write_bytes(way(random))
        counted = way is _grown or random.random() < 0.1
        try:
            with limited(CALLS + CALLS_PER_BYTE * path.stat().st_size if counted else None):
                check(path)
        except UserError as error:
            sentence = one_line(str(error))
            assert "\n" not in sentence
            assert str(path) in sentence
            assert len(sentence) < 1000 + len(str(path)), "nobody reads that"
            counts["refused"] += 1
        else:
            counts["passed"] += 1

    try_one()
    assert counts["refused"] > 1000
    assert counts["passed"] > 100


def _other_values(random: Random) -> bytes:
    """A right file in which up to three places are others."""
    content = _right(random)
    raw: list[str] = []
    for _ in range(random.randint(1, 3)):
        parent, key = random.choice(list(places(content)))
        change = random.choice(("value", "value", "value", "value", "odd", "remove", "add"))
        if change == "remove":
            del parent[key]
        elif change == "add" and isinstance(parent, dict):
            parent[random.choice(("extra", "epoch", 1, None, "x" * 10_000))] = 1
        else:
            raw.append(random.choice(LIKE.get(type(parent[key]), ODD) if change == "value" else ODD))
            parent[key] = f"{MARK}{len(raw) - 1}{MARK}"
    text = yaml.dump(
        content, Dumper=DUMPER, allow_unicode=True, default_flow_style=random.random() < 0.2, sort_keys=False
    )
    for number, value in enumerate(raw):
        text = text.replace(f"{MARK}{number}{MARK}", value)
    return text.encode("utf-8", "replace")


def _other_text(random: Random) -> bytes:
    """The text of a right file with YAML's own signs where they do not belong, or with parts of it elsewhere."""
    text = yaml.dump(_right(random), Dumper=DUMPER, default_flow_style=random.choice((True, False, None)))
    for _ in range(random.randint(1, 4)):
        start, end = sorted(random.randrange(len(text) + 1) for _ in range(2))
        part = random.choice((random.choice(TOKENS), text[start : min(end, start + 80)], ""))
        place = random.randrange(len(text) + 1)
        text = text[:place] + part + text[place + random.choice((0, 0, 1, 10)) :]
    return text.encode("utf-8", "replace")


def _other_bytes(random: Random) -> bytes:
    """A right file with other bytes, cut, or grown to more than is read."""
    return bytes_like(random, yaml.dump(_right(random), Dumper=DUMPER).encode()) * random.choice((1, 1, 1, 1, 1000))


def _grown(random: Random) -> bytes:
    """A few lines that stand for a lot: aliases and merges of themselves, deep, long, or many."""
    levels, width = random.randint(2, 40), random.randint(2, 12)
    kind = random.choice(("lists", "merges", "deep", "words", "keys"))
    if kind in ("lists", "merges"):
        first, line = ("[1]", "[{}]") if kind == "lists" else ("{k: 1}", "{{<<: [{}]}}")
        lines = [f"  k0: &k0 {first}"]
        lines += [f"  k{n}: &k{n} {line.format(', '.join([f'*k{n - 1}'] * width))}" for n in range(1, levels)]
    elif kind == "deep":
        lines = [f"{'  ' * (depth + 1)}k:" for depth in range(levels)]
    elif kind == "words":
        lines = [f"  {'x' * 10 ** random.randint(1, 5)}: {'y' * 10 ** random.randint(1, 4)}"]
    else:
        lines = [f"  k{number}: {number}" for number in range(10 ** random.randint(1, 4))]
    return "\n".join([f"{random.choice(sorted(TINY_PARAMS))}:", *lines, "download: {source: folder}"]).encode()


WAYS: list[Callable[[Random], bytes]] = [*[_other_values] * 12, *[_other_text] * 5, _other_bytes, _grown]


def _right(random: Random) -> dict[str, Any]:
    """A right file, mostly with some settings of an attack, and in part with a further defense."""
    content: dict[str, Any] = copy.deepcopy(TINY_PARAMS)
    attack = random.choice(names("refine.attacks"))
    content["poison_dataset"]["attack"]["name"] = attack
    content["attacks"].setdefault(attack, {})
    if attack != "custom" and random.random() < 0.8:
        given = list(component("refine.attacks", attack, "").Params().model_dump().items())
        content["attacks"][attack] = dict(random.sample(given, min(len(given), 3)))
    if random.random() < 0.5:
        defense = random.choice([name for name in names(DEFENSES) if name != "refine"])
        given = list(component(DEFENSES, defense, "").Params().model_dump().items())
        content["defenses"], content["splits"] = [defense], names(SPLITS)
        content["defense_settings"][defense] = dict(random.sample(given, min(len(given), 3)))
    return content
