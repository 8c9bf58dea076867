"""Writing a report as one HTML file that needs no network and no script, and reading its content back."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from refine.core.documents import validated
from refine.core.errors import UserError
from refine.core.files import new_file
from refine.proof.page.content import Report, Tone

LARGEST_PAGE = 1 << 26
"""Largest page that is read, in bytes; a page of ours has one or two megabytes."""
_REMEDY = "give a page that `refine defend` or `refine report` wrote"
_MARKS: dict[Tone, str] = {"good": "good", "bad": "look here", "open": "to note"}
_DATA = "report"


def write_page(path: Path, report: Report, smooth: bool) -> None:
    """Writes the page.

    Args:
        path: of the HTML file.
        report: what it says. Class names and file names in it may be anybody's: all text is escaped.
        smooth: how pictures are enlarged; photographs look better so, few pixels do not.
    """
    template = files("refine.proof.page").joinpath("page.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True).from_string(template)
    text = page.render(report=report, smooth=smooth, marks=_MARKS, data=_embedded(report))
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _embedded(report: Report) -> Markup:
    """The report as JSON that cannot end the element it stands in; without pictures, which stand in the page once."""
    content = report.model_dump()
    for block in content["blocks"]:
        del block["photos"]
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def read_page(path: Path) -> Report:
    """Reads the content of a page, without its pictures. The page may be anybody's.

    Raises:
        UserError: it is missing, too large, or no page of ours.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {_REMEDY}")
    if path.stat().st_size > LARGEST_PAGE:
        raise UserError(f"{path} is larger than {LARGEST_PAGE >> 20} MiB; {_REMEDY}")
    finder = _Finder()
    try:
        finder.feed(path.read_text(encoding="utf-8"))
        content = json.loads("".join(finder.found))
    except (ValueError, RecursionError):
        raise UserError(f"{path} holds no report; {_REMEDY}") from None
    return validated(path, content, Report, _REMEDY)


class _Finder(HTMLParser):
    """Collects the text of the element that holds the content."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script" and ("id", _DATA) in attrs

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found.append(data)
