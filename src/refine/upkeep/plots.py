"""The files that DVC draws plots from. If one is missing, DVC writes no page, and does not name the file."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import yaml

from refine.core.errors import UserError


def missing(project: Path) -> list[str]:
    """Files that `dvc.yaml` names for plots and that do not exist."""
    plots = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8")).get("plots", [])
    named = [[plot] if isinstance(plot, str) else next(iter(plot.values()))["y"] for plot in plots]
    return [path for path in dict.fromkeys(chain(*named)) if not (project / path).is_file()]


def refuse_missing(project: Path) -> None:
    """Refuses a checkout in which DVC cannot draw the plots.

    Raises:
        UserError: files are missing.
    """
    absent = missing(project)
    if absent:
        more = f" and {len(absent) - 1} more files are" if len(absent) > 1 else " is"
        raise UserError(
            f"{absent[0]}{more} missing, without which `dvc plots` draws no page; type `dvc checkout`, or `dvc pull` "
            "where the run was computed elsewhere, or ./run to compute it here"
        )
