"""What a report says, without what it looks like. Everything is plain text, which the page escapes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from refine.core.strict import Strict
from refine.models.card import Sha256

Tone = Literal["good", "bad", "open"]
"""Whether a reader may be glad of a finding, should act on it, or learns that it cannot be told."""


class Finding(Strict):
    """Attributes:
    tone: how to take it.
    text: a sentence or two, with the uncertainty.
    """

    tone: Tone
    text: str


class Table(Strict):
    """Attributes:
    columns: headings.
    rows: as many cells each.
    """

    columns: list[str]
    rows: list[list[str]]


class Photo(Strict):
    """An image in a gallery.

    Attributes:
        pictures: what is shown, side by side: a caption and a `data:` address.
        lines: what is said of it, such as predictions.
        changed: whether the two models give it different classes.
    """

    pictures: list[tuple[str, str]]
    lines: list[str]
    changed: bool


class Block(Strict):
    """A section of the page.

    Attributes:
        title: heading.
        text: paragraphs.
        points: a list below them.
        table: below that.
        photos: below that.
        note: small print at the end.
    """

    title: str
    text: list[str] = Field(default_factory=list)
    points: list[str] = Field(default_factory=list)
    table: Table | None = None
    photos: list[Photo] = Field(default_factory=list)
    note: str = ""


class Sums(Strict):
    """SHA-256 sums by which a reader can tell whether the report is about what he has; see `verify`.

    Attributes:
        classifier: of card and weights of the model as it was delivered.
        defense: of card and weights of the defense.
        images: one sum over all images.
        labeled: one sum over labeled images that the accuracy was measured with; None if it was not.
        code: of the code that made the report.
    """

    classifier: Sha256
    defense: Sha256
    images: Sha256
    labeled: Sha256 | None = None
    code: Sha256


class Report(Strict):
    """Attributes:
    format_version: of this.
    title: of the page.
    subtitle: what it is about, and when it was made.
    verdict: the page in a sentence.
    findings: what the verdict is made of.
    blocks: everything else, in order.
    sums: of what the report is about.
    """

    format_version: Annotated[int, Field(ge=1, le=1)] = 1
    title: str
    subtitle: str
    verdict: Finding
    findings: list[Finding]
    blocks: list[Block]
    sums: Sums
