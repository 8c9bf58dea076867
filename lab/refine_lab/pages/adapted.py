"""What an attacker who knows the defense found, see `refine_lab.adaptive.measure`, as a table in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from refine.core.errors import UserError
from refine.core.files import read_json
from refine_lab.pages.cells import percent
from refine_lab.pages.tables import markdown
from refine_lab.systems import label

_CONTROL = "clean "


def adapted(path: Path) -> str:
    """A line for each system that a pattern was sought through and each that it was tried on.

    Raises:
        UserError: the file is missing, or `refine adapt` did not write it.
    """
    remedy = "make it with `refine adapt`"
    try:
        lines = [_line(row) for row in read_json(path, remedy)["rows"]]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path} is not what `refine adapt` writes; {remedy}") from None
    return markdown(pd.DataFrame(lines))


def _line(row: dict[str, Any]) -> dict[str, str]:
    low, high = row["interval_95"]
    return {
        "sought through": _system(row["sought_through"]),
        "tried on": _system(row["tried_on"]),
        "leads to the target": f"{percent(row['success'])} [{100 * low:.1f}, {100 * high:.1f}]",
        "without the pattern": percent(row["without"]),
        "recognized": percent(row["robust_accuracy"]),
    }


def _system(name: str) -> str:
    bare = name.removeprefix(_CONTROL)
    return label(bare) if bare == name else f"{label(bare)}, classifier without backdoor"
