"""Writing a report and reading it back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from refine.core.errors import UserError
from refine.proof.page import write
from refine.proof.page.content import Block, Finding, Photo, Report, Sums, Table
from refine.proof.page.pictures import address_of
from refine.proof.page.write import read_page, write_page

HOSTILE = '</script><script>document.title = "owned"</script><img src=x onerror="document.title=1">&amp;'


def report(**changed: object) -> Report:
    picture = address_of(torch.arange(3 * 16 * 16, dtype=torch.uint8).view(3, 16, 16))
    photo = Photo(pictures=[("your photo", picture), ("what the model gets", picture)], lines=[HOSTILE], changed=True)
    made = Report(
        title="A report",
        subtitle=f"on {HOSTILE}",
        verdict=Finding(tone="good", text="All is well."),
        findings=[Finding(tone=tone, text=f"This is {tone}.") for tone in ("good", "bad", "open")],
        blocks=[
            Block(title="Table", text=[HOSTILE], table=Table(columns=["a", "b"], rows=[["1", HOSTILE]])),
            Block(title="Photos", points=["one"], photos=[photo], note="small"),
        ],
        sums=Sums(classifier="0" * 64, defense="1" * 64, images="2" * 64, code="3" * 64),
    )
    return made.model_copy(update=changed)


def test_what_is_written_is_read_without_pictures(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", report(), smooth=False)
    blocks = [block.model_copy(update={"photos": []}) for block in report().blocks]
    assert read_page(tmp_path / "page.html") == report(blocks=blocks)


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_page(tmp_path / name, report(), smooth=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "content", ["", "<p>no report</p>", '<script type="application/json" id="report">{"title": 1}</script>', "\xff"]
)
def test_another_page_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "page.html").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"page\.html .*; give a page that"):
        read_page(tmp_path / "page.html")


def test_a_missing_and_a_huge_page_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is missing"):
        read_page(tmp_path / "page.html")
    write_page(tmp_path / "page.html", report(), smooth=False)
    monkeypatch.setattr(write, "LARGEST_PAGE", 100)
    with pytest.raises(UserError, match="larger than"):
        read_page(tmp_path / "page.html")


@pytest.fixture
def opened(browser: WebDriver, tmp_path: Path) -> WebDriver:
    write_page(tmp_path / "page.html", report(), smooth=False)
    browser.get(f"file://{tmp_path}/page.html")
    return browser


def test_a_browser_shows_all_of_it_and_runs_nothing(opened: WebDriver) -> None:
    assert opened.title == "A report"
    text = opened.find_element(By.TAG_NAME, "body").text
    for part in ("All is well.", "This is bad.", "look here", "what the model gets", "small", "3" * 64, HOSTILE):
        assert part in text
    widths = opened.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert widths == [16, 16]
    assert opened.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_a_page_prints_to_pdf(opened: WebDriver) -> None:
    assert len(opened.print_page()) > 5000  # base64
