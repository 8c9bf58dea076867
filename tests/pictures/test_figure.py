"""Figures: the same bytes whoever draws them, and names in the space that there is."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from refine.pictures.figure import _width, fitted, same_everywhere, save

DRAW = """
import sys
from pathlib import Path
from matplotlib.figure import Figure
from refine.pictures.figure import same_everywhere, save
with same_everywhere():
    figure = Figure(figsize=(2, 1), dpi=100)
    figure.text(0.5, 0.5, "$two$ _words \\u2713")
    save(figure, Path(sys.argv[1]), vector=True)
"""


def test_the_bytes_do_not_depend_on_the_process_the_time_or_somebody_s_settings(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nfigure.facecolor: red\nsavefig.dpi: 7\n", encoding="utf-8")
    for name, epoch, hashes in (("one", "1", "1"), ("two", "999999999", "2")):
        command = [sys.executable, "-c", DRAW, str(tmp_path / f"{name}.png")]
        env = {"SOURCE_DATE_EPOCH": epoch, "PYTHONHASHSEED": hashes, "PYTHONPATH": ":".join(sys.path)}
        place = tmp_path if name == "two" else None
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=True)
        assert done.stderr == ""
    for kind in ("png", "pdf"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size == (200, 100)
    text = (tmp_path / "one.pdf").read_bytes()
    assert b"/Type0" in text or b"/Subtype /TrueType" in text or b"/CIDFontType2" in text
    assert b"CreationDate" not in text


def test_settings_are_as_before_afterwards() -> None:
    before = dict(mpl.rcParams)
    with same_everywhere():
        mpl.rcParams["font.size"] = 99
    assert dict(mpl.rcParams) == before


def test_only_where_it_is_asked_for_there_is_a_pdf(tmp_path: Path) -> None:
    with same_everywhere():
        save(Figure(), tmp_path / "a.png", vector=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_letters_that_the_font_lacks_do_not_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings(), same_everywhere():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure()
        figure.text(0, 0, fitted("\u65e5\u672c\u8a9e", 100, 9))
        save(figure, tmp_path / "a.png", vector=True)


@pytest.mark.parametrize(
    ("name", "lines", "shown"),
    [
        ("7", 1, "7"),
        ("automobile", 2, "automobile"),
        ("clean, transformed", 2, "clean,\ntransformed"),
        ("a very long class name that people give, cat", 1, "a very \u2026e, cat"),
        ("a very long class name that people give, cat", 2, "a very long\nc\u2026ple give, cat"),
        ("  white \n space ", 1, "white space"),
        ("", 1, ""),
        ("$x_1$ \\frac", 1, "$x_1$ \\frac"),
    ],
)
def test_a_name_goes_on_more_lines_and_then_without_its_middle(name: str, lines: int, shown: str) -> None:
    with same_everywhere():
        assert fitted(name, 70, 9, lines) == shown


@settings(max_examples=60, deadline=None, derandomize=True)
@given(name=st.text(min_size=1, max_size=300), lines=st.integers(1, 3), width=st.floats(20, 200))
def test_any_name_fits(name: str, lines: int, width: float) -> None:
    with same_everywhere():
        shown = fitted(name, width, 9, lines).splitlines()
        assert len(shown) <= lines
        assert all(_width(line, 9) <= width for line in shown)
