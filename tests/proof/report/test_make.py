"""A whole report on a tiny model, and what becomes of it when its subject changes."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commands import refine
from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.deployment.folder import sum_of
from refine.proof import images as user_images
from refine.proof.page.write import read_page
from refine.proof.report.make import Wanted, make
from tiny import CPU, classifier_folder, defense_folder, pack

DAY = date(2026, 1, 2)
QUICK = Wanted(stress=False, signs=False)
COUNT = 30


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defended model, and photos with a place and a camera in their files."""
    monkeypatch.chdir(tmp_path)
    classifier_folder(Path("defended/classifier"))
    defense_folder(Path("defended/defense"), Path("defended/classifier"))
    Path("photos").mkdir()
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    for number in range(COUNT):
        noise = np.random.RandomState(number).randint(0, 256, (20, 24, 3)).astype(np.uint8)
        Image.fromarray(noise).save(f"photos/{number:02d}.jpg", exif=exif)
    pack(Path("defended"), sum_of(map(sha256_of, files())))


def files() -> list[Path]:
    return sorted(Path("photos").iterdir())


def test_the_page_tells_what_was_done_and_shows_photos_without_their_data() -> None:
    report = make(Path("defended"), files(), QUICK, DAY, CPU)
    page = Path("defended/report.html").read_text(encoding="utf-8")
    assert report.verdict.tone == "open"
    assert "holds no proof that the defense works" in page
    assert "02 January 2026" in page
    assert page.count("data:image/png;base64,") >= 2
    assert "SecretCamera" not in page
    assert str(Path.cwd()) not in page
    assert not Path("defended/stress.json").exists()


def test_without_pictures_there_are_none() -> None:
    make(Path("defended"), files(), Wanted(stress=False, signs=False, pictures=False), DAY, CPU)
    page = Path("defended/report.html").read_text(encoding="utf-8")
    assert "data:image" not in page
    assert "made without pictures" in page


def test_other_images_are_refused() -> None:
    Path("photos/00.jpg").unlink()
    with pytest.raises(UserError, match="not the images that defended was defended with"):
        make(Path("defended"), files(), QUICK, DAY, CPU)
    assert not Path("defended/report.html").exists()


def test_labeled_photos_tell_the_accuracy_and_decide_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        folder = Path(f"check/class-{number % 3}")
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.RandomState(100 + number).randint(0, 256, (20, 24, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    report = make(Path("defended"), files(), Wanted(stress=False, signs=False, check=Path("check")), DAY, CPU)
    assert "On labeled photos" in report.findings[0].text
    assert "of 6 (95 %" in report.findings[0].text
    told = refine(capsys, "verify", "defended/report.html", "--images", "photos", "--check", "check")
    assert told.out.count("the same") == 5
    assert "not compared" in refine(capsys, "verify", "defended/report.html", "--images", "photos").out
    Path("check/class-0/0.png").unlink()
    other = refine(capsys, "verify", "defended/report.html", "--images", "photos", "--check", "check")
    assert "is not about this labeled" in other.err
    Path("check/class-0/same.jpg").write_bytes(files()[0].read_bytes())
    again = refine(capsys, "report", "defended", "photos", "--no-stress", "--no-signs", "--check", "check")
    assert again.is_one_sentence("check/class-0/same.jpg is also photos/00.jpg")


def test_verify_says_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    make(Path("defended"), files(), QUICK, DAY, CPU)
    page = "defended/report.html"
    same = refine(capsys, "verify", page, "--images", "photos")
    assert same.status == 0
    assert same.out.count("the same") == 4
    assert "not compared" in refine(capsys, "verify", page).out
    Path("photos/00.jpg").unlink()
    with Path("defended/defense/card.json").open("a", encoding="utf-8") as card:
        card.write("\n")
    other = refine(capsys, "verify", page, "--images", "photos")
    assert other.status == 1
    assert "is not about this defense, images" in other.err


def test_the_same_subject_gives_the_same_page() -> None:
    pages = []
    for _ in range(2):
        make(Path("defended"), files(), QUICK, DAY, CPU)
        pages.append(Path("defended/report.html").read_bytes())
    assert pages[0] == pages[1]
    assert read_page(Path("defended/report.html")).subtitle == "defended, 02 January 2026"


def test_the_command_writes_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    told = refine(capsys, "report", "defended", "photos", "--no-stress", "--no-signs")
    assert told.status == 0
    assert "See defended/report.html." in told.out


def test_of_too_large_images_some_are_read_and_those_held_out_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_images, "MOST_BYTES", 3 * 16**2 * 10)
    always = torch.arange(COUNT) % 10 == 0
    rows = user_images.some(COUNT, always, 16)
    assert len(rows) == 10
    assert set(always.nonzero().flatten().tolist()) <= set(rows.tolist())
    assert rows.tolist() == sorted(rows.tolist())
