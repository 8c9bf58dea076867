"""Filling the tables of pages in Markdown from recorded runs and other measurements.

A page says what goes where: `<!-- made: attacks experiments/attacks.yaml -->` ... `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from refine.core.errors import UserError
from refine.core.files import new_file
from refine_lab.lists.rows import Rows, read_rows
from refine_lab.pages import gallery, tables
from refine_lab.pages.adapted import adapted
from refine_lab.pages.comparison.choice import chosen
from refine_lab.pages.comparison.published import beside_published
from refine_lab.pages.comparison.tables import compared, ranked
from refine_lab.pages.headline import headline

_PLACE = re.compile(r"(?s)(<!-- made: (\S+) (\S+) -->\n).*?(<!-- end -->)")
_TABLES: dict[str, Callable[[Rows, Path], str]] = {
    "attacks": tables.attacks,
    "beside-published": beside_published,
    "chosen": chosen,
    "compared": compared,
    "defenses": tables.defenses,
    "headline": headline,
    "ranked": ranked,
    "results": tables.results,
    "spread": tables.spread,
}
_FILES: dict[str, Callable[[Path], str]] = {"adapted": adapted}
_FOLDERS: dict[str, Callable[[Path, Path], str]] = {"not-run": tables.not_run}
_SECTIONS: dict[str, Callable[[Rows, Path, Path], str]] = {
    "gallery": gallery.attacks,
    "defense-gallery": gallery.defenses,
}


def fill(pages: list[Path], project: Path) -> None:
    """Makes the tables of pages anew, all of them or, where one cannot be filled, none.

    Raises:
        UserError: a page is missing, or asks for what is not known.
    """
    for page, text in [(page, filled(page, project)) for page in pages]:
        with new_file(page) as partial:
            partial.write_text(text, encoding="utf-8")


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


def _made(kind: str, source: Path, page: Path, project: Path) -> str:
    if kind in _FILES:
        return _FILES[kind](source)
    if kind in _FOLDERS:
        return _FOLDERS[kind](source, project)
    if kind in _SECTIONS:
        return _SECTIONS[kind](read_rows(source), project, page.resolve())
    if kind in _TABLES:
        return _TABLES[kind](read_rows(source), project)
    known = ", ".join([*_TABLES, *_FILES, *_FOLDERS, *_SECTIONS])
    raise UserError(f"{page} asks for {kind!r}, which is not known; choose one of {known}")
