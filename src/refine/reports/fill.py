"""Fills the tables of pages in Markdown from recorded runs, and draws those runs at a glance.

    python -m refine.reports.fill docs/attacks.md [PAGE ...]

A page says what goes where: `<!-- made: attacks experiments/attacks.yaml -->` ... `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from refine.core.errors import UserError, command
from refine.core.files import new_file
from refine.reports import attacks, overview, tables
from refine.reports.lists import read_rows

_PLACE = re.compile(r"(?s)(<!-- made: (\S+) (\S+) -->\n).*?(<!-- end -->)")


def filled(page: Path, project: Path) -> str:
    """The text of a page with all of its tables made anew.

    Raises:
        UserError: the page is missing, or asks for what is not known.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{page} is missing; `ls docs` shows what is there") from None
    return _PLACE.sub(
        lambda found: f"{found[1]}\n{_made(found[2], project / found[3], page, project)}\n\n{found[4]}", text
    )


def _made(what: str, source: Path, page: Path, project: Path) -> str:
    tables_by_name = {"attacks": tables.attacks, "results": tables.results, "spread": tables.spread}
    if what == "gallery":
        return attacks.gallery(read_rows(source), project, page.resolve())
    if what not in tables_by_name:
        raise UserError(f"{page} asks for {what!r}, which is not known; choose gallery, {', '.join(tables_by_name)}")
    return tables_by_name[what](read_rows(source), project)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m refine.reports.fill",
        description="Fills the tables of pages, metrics/runs.csv and docs/runs.svg from recorded runs.",
    )
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE", help="such as docs/attacks.md")
    for page in parser.parse_args(arguments).pages:
        text = filled(page, Path.cwd())
        with new_file(page) as partial:
            partial.write_text(text, encoding="utf-8")
    overview.write(Path.cwd())


if __name__ == "__main__":
    command(main)
