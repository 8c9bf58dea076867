"""Reading `params.yaml` strictly: what is not understood is refused by name.

DVC reads YAML 1.2 and PyYAML 1.1: `1e-3`, `yes`, `010` and `1:30` mean different things to them. The loader
here resolves plain scalars by the 1.2 rules, so that a stage sees the very values that DVC compares.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from refine.system.errors import UserError

SECTIONS = ("download", "sources", "poison_dataset", "attacks", "train_backdoor", "train_refine", "evaluate")


def _numeric_string(value: Any) -> Any:
    """The one leniency: `1e-3` is a string to YAML 1.1 writers and readers (also `dvc exp run -S` passes some on)."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_numeric_string)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A mapping in `params.yaml`: fixed keys, exact types, finite numbers, never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, content: Any) -> Any:
        if content is None:
            return {}
        for key in content if isinstance(content, dict) else ():
            if key not in cls.model_fields:
                raise PydanticCustomError("unknown", "{sentence}", {"sentence": unknown(key, cls.model_fields)})
        return content


Model = TypeVar("Model", bound=Section)


def unknown(name: object, known: Any) -> str:
    """`'epoch' is not known, did you mean 'epochs'?`, or the list of what is known where nothing is near."""
    nearest = get_close_matches(str(name), list(known), n=1)
    if nearest:
        return f"{str(name)!r} is not known, did you mean {nearest[0]!r}?"
    return f"{str(name)!r} is not known, choose from {', '.join(sorted(known)) or 'nothing: it takes no settings'}"


class ParamsFile:
    """A parameters file, of which a stage reads only the sections that it declares in `dvc.yaml`.

    Attributes:
        path: of the file.
        content: all of it, unchecked beyond the names of its sections.

    Raises:
        UserError: the file is missing, is not YAML, repeats a key, or has a section that is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Yaml12)  # noqa: S506 (a SafeLoader)
        except FileNotFoundError:
            raise UserError(f"{path} is missing; restore it with `git checkout {path}`") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or `!!int word`
            raise UserError(f"{path} cannot be read as YAML: {error}") from None
        if not isinstance(content, dict):
            raise UserError(f"{path} does not hold a mapping of sections; restore it with `git checkout {path}`")
        for name in content:
            if name not in SECTIONS:
                raise UserError(f"{path}: section {unknown(name, SECTIONS)}")
        self.content = content

    def section(self, name: str, model: type[Model]) -> Model:
        """The section called `name` (dots lead into nested mappings), checked against its model.

        Raises:
            UserError: it is missing or does not fit the model.
        """
        content: Any = self.content
        for part in name.split("."):
            if not isinstance(content, dict) or part not in content:
                raise UserError(f"{self.path}: {name} is missing; write `{part}: {{}}` there to take its defaults")
            content = content[part]
        try:
            return model.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{self.path}: {sentence(name, error)}") from None

    def names_in(self, name: str) -> list[str]:
        """The keys of a section, for a check of the whole file."""
        content = self.content.get(name) or {}
        if not isinstance(content, dict):
            raise UserError(f"{self.path}: {name} must be a mapping")
        return [str(key) for key in content]


def sentence(section: str, error: ValidationError) -> str:
    """What is wrong first in a section, and how much more there is."""
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join([section, *(str(part) for part in first["loc"] if get_origin(part) is None)])
    told = first["msg"].removeprefix("Value error, ")
    if first["type"] not in ("unknown", "value_error", "missing"):
        told = f"{told[0].lower()}{told[1:]}, not {first['input']!r}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {told}{more}"


class _Yaml12(yaml.SafeLoader):
    """PyYAML's safe loader with the scalar rules of YAML 1.2 and no repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def _integer(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node)).lower()
        return int(text, 8 if "0o" in text else 16 if "0x" in text else 10)

    def _float(self, node: yaml.ScalarNode) -> float:
        return float(str(self.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


_Yaml12.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] == "tag:yaml.org,2002:merge"]
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
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), _firsts)
_Yaml12.add_constructor("tag:yaml.org,2002:int", _Yaml12._integer)
_Yaml12.add_constructor("tag:yaml.org,2002:float", _Yaml12._float)
