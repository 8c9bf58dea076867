"""Files that are more than a parameters file could be are refused before anything is made of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest

from refine.core.errors import UserError
from refine.core.yaml12 import DEEPEST, MOST_BYTES, MOST_DIGITS, MOST_NODES, cut, load, shown


def made(folder: Path, content: str | bytes) -> Any:
    """What is read from a file of this content."""
    path = folder / "params.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load(path)


def refusal(folder: Path, content: str | bytes) -> str:
    """The sentence, less its beginning, with which a file of this content is refused."""
    with pytest.raises(UserError) as refused:
        made(folder, content)
    return str(refused.value).removeprefix(f"{folder}/params.yaml cannot be read as YAML: ")


def doubled(first: str, line: str) -> str:
    """A mapping that would grow tenfold with each of its 26 lines."""
    lines = [f"a: &a {first}"]
    for before, name in pairwise(ascii_lowercase):
        lines.append(f"{name}: &{name} " + line.format(", ".join([f"*{before}"] * 10)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#" * (MOST_BYTES + 1), "is larger than the 100,000 bytes that are read"),
        ("a: " + "[" * 5000 + "]" * 5000, "more than 32 mappings and lists within each other in line 1"),
        ("".join(" " * depth + "a:\n" for depth in range(300)), "more than 32 mappings and lists within each other"),
        (doubled("[1]", "[{}]"), "more than 10,000 values, or 32 within each other in line 5"),
        (doubled("{k: 1}", "{{<<: [{}]}}"), "more than 10,000 values, or 32 within each other in line 5"),
        ("a: [" + "1, " * MOST_NODES + "1]", "more than 10,000 values, or 32 within each other in line 1"),
        (
            "0: &a0 [1]\n" + "".join(f"{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 40)),
            "more than 10,000 values, or 32 within each",
        ),
        ("a: &a [*a]", "an alias for what it is a part of in line 1"),
        ("a: &a {*a : 1}", "an alias for what it is a part of in line 1"),
        (f"a: *{'x' * 5000}", f"found undefined alias '{'x' * 50}"),
        (f"a: 0x{'f' * 5000}", "a number of more than 40 digits in line 1"),
        (f"a: 1{'0' * 5000}", "a number of more than 40 digits in line 1"),
        (
            f"? {'a' * 5000}\n: 1\n? {'a' * 5000}\n: 1",
            "the key 'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa' stands twice in line 3",
        ),
        ("a: !!timestamp never", "a tag such as !!int, which no parameter needs in line 1"),
        ("a: ! 1", "a tag such as !!int, which no parameter needs in line 1"),
        ('a: "\\0"', "a character that cannot be printed in line 1"),
        ('a: "\\uD800"', "a character that cannot be printed in line 1"),
        ('"\\0": 1', "a character that cannot be printed in line 1"),
        ('a: "\\UFFFFFFFF"', "bytes or an escape in it stand for no character"),
        (b"a: \xff", "bytes or an escape in it stand for no character"),
        (b"a: \x01", "unacceptable character #x0001: special characters are not allowed"),
        ("a: 1\n---\nb: 1", "expected a single document in the stream, but found another document in line 2"),
        ("a: [1", "while parsing a flow sequence, expected ',' or ']', but got '<stream end>' in line 1"),
    ],
)
def test_what_no_parameters_file_holds_is_refused_in_one_short_sentence(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    sentence = refusal(tmp_path, content)
    assert message in sentence
    assert len(sentence) < 400


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); restore it with `git checkout "):
        load(tmp_path)


def test_what_is_within_the_bounds_is_read(tmp_path: Path) -> None:
    assert made(tmp_path, f"a: {'9' * MOST_DIGITS}") == {"a": 10**MOST_DIGITS - 1}
    assert made(tmp_path, "a: [" + "1, " * (MOST_NODES - 10) + "1]") == {"a": [1] * (MOST_NODES - 9)}
    deepest = made(tmp_path, "a: " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1))
    assert repr(deepest).count("[") == DEEPEST - 1
    assert made(tmp_path, "{}".ljust(MOST_BYTES)) == {}


def test_a_mapping_may_be_merged_before_it_is_read_itself(tmp_path: Path) -> None:
    text = "deep: {er: {first: &a {<<: {x: 1}, x: 2}}}\nsecond: {<<: *a}\n"
    assert made(tmp_path, text) == {"deep": {"er": {"first": {"x": 2}}}, "second": {"x": 2}}


def test_long_values_are_shortened() -> None:
    nested: Any = []
    for _ in range(100):
        nested = [nested] * 10
    assert len(shown(nested)) == 200
    assert len(shown("x" * 10_000)) == 60
    assert shown({"a": [1, "b"]}) == "{'a': [1, 'b']}"
    assert cut("x" * 100) == "x" * 57 + "..."
    assert cut("short") == "short"
