"""Reading `params.yaml` strictly: unknown names and wrong values are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from refine.core.errors import UserError
from refine.core.strict import Strict
from refine.core.yaml12 import cut, load, shown

SECTIONS = {
    "download": "refine.download.params:DownloadParams",
    "sources": "refine.sources",
    "other_images": "refine.download.params:other_images",
    "poison_dataset": "refine.poisoning.params:PoisonDatasetParams",
    "attacks": "refine.attacks",
    "train_backdoor": "refine.backdoor.params:TrainBackdoorParams",
    "train_refine": "refine.defenses.refine.training.params:TrainRefineParams",
    "splits": "refine.splitting.params:listed",
    "split_settings": "refine.splitting.params:all_settings",
    "defenses": "refine.defending.params:further",
    "defense_data": "refine.defending.params:DefenseDataParams",
    "defense_settings": "refine.defending.params:all_settings",
    "evaluate": "refine.evaluation.params:EvaluateParams",
}
"""All sections of a file: the model of each, the function that reads it, or the package whose components it configures.
They are given by name, so that a stage imports only its own model."""

_NUMERIC = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_LARGEST = 1e6


def _numeric_string(value: Any) -> Any:
    """Accepts `1e-3`, which is a string in YAML 1.1 (`dvc exp run -S` may write such strings)."""
    return float(value) if isinstance(value, str) and _NUMERIC.fullmatch(value) else value


Number = Annotated[float, BeforeValidator(_numeric_string)]
PositiveNumber = Annotated[Number, Field(gt=0, le=_LARGEST)]
"""At most a million: larger rates, weights or factors swamp whatever float32 adds them to."""
Weight = Annotated[Number, Field(ge=0, le=_LARGEST)]
"""At most a million; 0 turns the weighted term off."""
Share = Annotated[Number, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(Strict):
    """A mapping in `params.yaml`: fixed keys, strict types, finite numbers; immutable."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, content: Any) -> Any:
        if content is None:
            return {}
        known = [field.alias or name for name, field in cls.model_fields.items()]  # a name may be a word of Python
        for key in content if isinstance(content, dict) else ():
            if key not in known:
                raise PydanticCustomError("unknown", "{sentence}", {"sentence": unknown(key, known)})
        return content


Model = TypeVar("Model", bound=Section)


def unknown(name: object, known: Any) -> str:
    """A message such as `'epoch' is not known, did you mean 'epochs'?`, or with all known names if none is similar."""
    word = cut(str(name))
    nearest = get_close_matches(word, list(known), n=1)
    if nearest:
        return f"{word!r} is not known, did you mean {nearest[0]!r}?"
    return f"{word!r} is not known, choose from {', '.join(sorted(known)) or 'nothing: it takes no settings'}"


class ParamsFile:
    """A parameters file. A stage reads only the sections that it declares in `dvc.yaml`.

    Attributes:
        path: of the file.
        content: of the whole file; only the names of its sections are checked.

    Raises:
        UserError: the file cannot be read (see `yaml12.load`), or has an unknown section.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = load(path)
        if not isinstance(content, dict):
            raise UserError(f"{path} does not hold a mapping of sections; restore it with `git checkout {path}`")
        for name in content:
            if name not in SECTIONS:
                raise UserError(f"{path}: section {unknown(name, SECTIONS)}")
        self.content = content

    def section(self, name: str, model: type[Model]) -> Model:
        """The section called `name` (dots lead into nested mappings), validated.

        Raises:
            UserError: the section is missing or does not fit the model.
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

    def component(self, room: str, name: str, model: type[Model]) -> Model:
        """The settings of a component, such as `attacks.badnets`.

        A component that is not named there has its defaults, so that a new one needs no entry in any parameters file.

        Args:
            room: the section, which is called like the package of the components, such as `attacks`.
            name: of the component.
            model: of its settings.

        Raises:
            UserError: the section is missing, or the settings do not fit the model.
        """
        if name in self.names_in(room):
            return self.section(f"{room}.{name}", model)
        try:
            return model.model_validate({})
        except ValidationError as error:
            raise UserError(f"{self.path}: {sentence(f'{room}.{name}', error)}") from None

    def listed(self, name: str, known: Sequence[str], example: str) -> list[str]:
        """A section that is a list of names.

        Args:
            name: of the section.
            known: the names that may be listed.
            example: of such a list.

        Raises:
            UserError: it is missing or not a list, or a name is unknown or is listed twice.
        """
        if name not in self.content:
            raise UserError(f"{self.path}: {name} is missing; write `{name}: []` there for none")
        content = self.content[name]
        if not isinstance(content, list):
            raise UserError(f"{self.path}: {name} must be a list such as {example}, not {shown(content)}")
        for each in content:
            if each not in known:
                raise UserError(f"{self.path}: {name}: {unknown(each, known)}")
            if content.count(each) > 1:
                raise UserError(f"{self.path}: {name}: {each} is listed twice; remove one")
        return [str(each) for each in content]

    def names_in(self, name: str) -> list[str]:
        """The keys of a section."""
        if name not in self.content:
            raise UserError(f"{self.path}: {name} is missing; write `{name}: {{}}` there to take its defaults")
        content = self.content[name] or {}
        if not isinstance(content, dict):
            raise UserError(f"{self.path}: {name} must be a mapping")
        return [str(key) for key in content]


def sentence(section: str, error: ValidationError) -> str:
    """The first problem of a section in one sentence, and the number of further ones."""
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join([section, *(cut(str(part)) for part in first["loc"] if get_origin(part) is None)])
    message = cut(first["msg"].removeprefix("Value error, "), 600)
    if first["type"] not in ("unknown", "value_error", "missing"):
        message = f"{message[0].lower()}{message[1:]}, not {shown(first['input'])}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {message}{more}"
