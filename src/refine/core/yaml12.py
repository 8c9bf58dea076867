"""A YAML 1.2 loader for untrusted files, which reads the same values as DVC.

DVC reads YAML 1.2 and PyYAML reads YAML 1.1, which differ in `1e-3`, `yes`, `010` and `1:30`. This loader resolves
plain scalars by the rules of 1.2, so that a stage sees exactly the values that DVC compares.

Size, depth, number of nodes (aliases expanded) and digits are bounded, so that a hostile file cannot take much time or
memory. Tags are refused.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode

from refine.core.errors import UserError

MOST_BYTES = 100_000
MOST_NODES = 10_000
DEEPEST = 32
MOST_DIGITS = 40
_LONGEST_WORD = 60
_LONGEST_VALUE = 200
_LONGEST_MESSAGE = 300
_MERGE = "tag:yaml.org,2002:merge"
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def load(path: Path) -> Any:
    """Loads a file.

    Raises:
        UserError: it cannot be read, is not YAML, repeats a key, or exceeds one of the bounds.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; restore it with `git checkout {path}`") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); restore it with `git checkout {path}`") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} is larger than the {MOST_BYTES:,} bytes that are read; take out what is not needed")
    try:
        return yaml.load(data.decode("utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} cannot be read as YAML: {_message(error)}") from None
    except (ValueError, OverflowError):
        raise UserError(f"{path} cannot be read as YAML: bytes or an escape in it stand for no character") from None


def shown(value: object) -> str:
    """A value as it appears in a message; long values are shortened."""
    return cut(_SHORT.repr(value), _LONGEST_VALUE)


def cut(text: str, longest: int = _LONGEST_WORD) -> str:
    """The text, cut to a length, with dots in place of the rest."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _message(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return cut(", ".join(part for part in (error.context, error.problem) if part), _LONGEST_MESSAGE) + where
    return cut(str(error), _LONGEST_MESSAGE)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalar rules of YAML 1.2, without tags and repeated keys, and with bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open = 0
        self._extents: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Composes the next node and refuses it if it exceeds a bound."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _refused("a tag such as !!int, which no parameter needs", event.start_mark)
        if self._open == DEEPEST:
            raise _refused(f"more than {DEEPEST} mappings and lists within each other", event.start_mark)
        self._open += 1
        node = super().compose_node(parent, index)
        self._open -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._extents:
                raise _refused("an alias for what it is a part of", event.start_mark)
        elif node is not None:
            self._extents[id(node)] = self._extent(node)
        return node

    def _extent(self, node: Node) -> tuple[int, int]:
        """Number of nodes (itself included) and depth of a node, with aliases expanded."""
        children: list[Node] = [] if isinstance(node, ScalarNode) else node.value
        if isinstance(node, MappingNode):
            self._refuse_repeated_keys(node)
            children = [part for pair in node.value for part in pair]
        inner = [self._extents[id(child)] for child in children]
        count, depth = 1 + sum(each[0] for each in inner), 1 + max((each[1] for each in inner), default=0)
        if count > MOST_NODES or depth > DEEPEST:
            raise _refused(f"more than {MOST_NODES:,} values, or {DEEPEST} within each other", node.start_mark)
        return count, depth

    def _refuse_repeated_keys(self, node: MappingNode) -> None:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refused("a key that is no word", key_node.start_mark)
            if key in seen:
                raise _refused(f"the key {shown(key)} stands twice", key_node.start_mark)
            seen.add(key)

    def _text(self, node: ScalarNode) -> str:
        text = str(self.construct_scalar(node))
        if _UNPRINTABLE.search(text):
            raise _refused("a character that cannot be printed", node.start_mark)
        return text

    def _integer(self, node: ScalarNode) -> int:
        text = str(self.construct_scalar(node)).lower()
        if len(text) > MOST_DIGITS:
            raise _refused(f"a number of more than {MOST_DIGITS} digits", node.start_mark)
        return int(text, 8 if "0o" in text else 16 if "0x" in text else 10)

    def _float(self, node: ScalarNode) -> float:
        return float(str(self.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = _LONGEST_WORD

_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] == _MERGE]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _firsts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), _firsts)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader._text)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader._integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader._float)
