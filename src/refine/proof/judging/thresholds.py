"""Thresholds of the signs, with the rates that were measured with them.

They stand in `thresholds.yaml` beside this file. `refine calibrate set` of the lab writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from refine.core.errors import UserError
from refine.core.params import sentence
from refine.core.strict import Strict
from refine.core.yaml12 import load

FILE = Path(__file__).with_name("thresholds.yaml")


class Rate(Strict):
    """A share of models: `count` of `of`, and its 95 % interval (Wilson)."""

    count: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]
    interval_95: Annotated[list[float], Field(min_length=2, max_length=2)]


class Calibrated(Strict):
    """What was measured of a sign. The rates are of other models than those that set the threshold.

    Attributes:
        threshold: a model with a higher score is suspicious; None if none tells attacked from clean models.
        settings: of the sign, for which alone the threshold holds.
        true_alarms: attacked models that are called suspicious.
        false_alarms: clean models that are called suspicious.
        abstained_attacked: attacked models of which the sign says nothing.
        abstained_clean: clean models of which the sign says nothing.
    """

    threshold: float | None
    settings: dict[str, Any]
    true_alarms: Rate
    false_alarms: Rate
    abstained_attacked: Rate
    abstained_clean: Rate


class Thresholds(Strict):
    """Content of the file.

    Attributes:
        calibrated_on: the models of the calibration, in a sentence; says so if there was none.
        signs: by their names.
    """

    calibrated_on: str
    signs: dict[str, Calibrated]


def read_thresholds(path: Path = FILE) -> Thresholds:
    """Reads a file of thresholds.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    try:
        return Thresholds.model_validate(load(path))
    except ValidationError as error:
        raise UserError(f"{path} holds no thresholds: {sentence('thresholds', error)}") from None
