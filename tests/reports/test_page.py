"""The page of plots and the picture of all runs, as a browser without a network shows them."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from refine.reports import overview, page
from refine.reports.run import HOME, read_all
from refine.system.errors import UserError
from support import PROJECT, run

OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
MARKS = "g[class*=mark-line] path, g[class*=mark-symbol] path, g[class*=mark-rect] path"


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    """A browser that reaches no network."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", OFFLINE, *quiet):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module", params=[("show",), ("diff", "HEAD")], ids=lambda command: command[0])
def drawn(request: pytest.FixtureRequest, browser: WebDriver, tmp_path_factory: pytest.TempPathFactory) -> WebDriver:
    """The page of this checkout's finished run, open."""
    if not (PROJECT / "metrics/plots").is_dir():
        pytest.skip("needs the finished default run: type ./run first")
    folder = tmp_path_factory.mktemp("page")
    (folder / ".dvc").mkdir()
    template = ("--html-template", str(page.install(folder)))
    result = run(PROJECT, "dvc", "plots", *request.param, "-o", str(folder), *template)
    assert result.returncode == 0, result.stderr
    browser.get(f"file://{folder}/index.html")
    return browser


def _named(project: Path) -> list[str]:
    """The plots that `dvc.yaml` names, as the page calls them."""
    text = (project / "dvc.yaml").read_text(encoding="utf-8").partition("\nplots:\n")[2]
    return [name.replace(" ", "_") for name in re.findall(r"^  - ([^:\n]+):$", text, re.MULTILINE)]


def test_every_plot_shows_a_mark(drawn: WebDriver) -> None:
    named = _named(PROJECT)
    assert len(named) == 7

    def marks(browser: WebDriver) -> dict[str, bool]:
        found = {}
        for name in named:
            (place,) = browser.find_elements("id", name)
            found[name] = any(path.get_attribute("d") for path in place.find_elements("css selector", MARKS))
        return found

    WebDriverWait(drawn, 20).until(lambda browser: all(marks(browser).values()), f"nothing drawn: {marks(drawn)}")


def test_every_picture_is_there(drawn: WebDriver) -> None:
    widths = drawn.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) >= 3
    assert all(width > 100 for width in widths)


def test_the_console_is_empty(drawn: WebDriver) -> None:
    assert drawn.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_the_page_names_no_address_to_load_from(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    text = page.install(tmp_path).read_text(encoding="utf-8")
    assert text.count("<script>") == text.count("</script>") == 1
    around = re.sub(r"(?s)<script>.*</script>", "", text)
    assert re.findall(r"<script|<img|(?:src|href)=\"(?!data:)", around) == []
    assert all(text.count(place) == 1 for place in ("{plot_divs}", "{refresh_tag}"))


def test_dvc_takes_the_template_from_its_local_settings(tmp_path: Path) -> None:
    subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    template = page.install(tmp_path)
    assert page.install(tmp_path) == template
    told = run(tmp_path, "dvc", "config", "--local", "plots.html_template").stdout.strip()
    assert tmp_path / ".dvc" / told == template


def test_another_template_that_somebody_set_stays(tmp_path: Path) -> None:
    subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["dvc", "config", "plots.html_template", "own.html"], cwd=tmp_path, check=True)
    with pytest.raises(UserError, match=r"DVC is set to another page, own\.html; type `dvc plots show --html-template"):
        page.install(tmp_path)
    assert run(tmp_path, "dvc", "config", "plots.html_template").stdout.strip() == "own.html"


def test_what_dvc_writes_with_it_needs_no_network(repo: Path, tmp_path: Path) -> None:
    for file in (overview.TEMPLATE, overview.TABLE):
        (repo / file).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / file, repo / file)
    page.install(repo)
    result = run(repo, "dvc", "plots", "show", "-o", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "<h1>refine" in text
    assert 'id = "Defence_training"' in text
    assert "<script src" not in text


def test_outside_a_dvc_project_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no DVC project"):
        page.install(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_runs_is_that_of_the_recorded_runs() -> None:
    made = overview.table(PROJECT).to_csv(index=False, lineterminator="\n")
    assert made == (PROJECT / overview.TABLE).read_text(encoding="utf-8"), "python -m refine.reports.fill README.md"


def test_each_run_with_an_attack_stands_there_twice() -> None:
    rows = overview.table(PROJECT)
    recorded = {name: done.facts.name for name, done in read_all(PROJECT / HOME).items()}
    shown = {name for name, of in recorded.items() if of.attack != "none" and of.dataset != "cifar10_dev"}
    assert set(rows["run"]) == shown
    assert set(rows.groupby("run")["system"].agg(tuple)) == {("no defence", "REFINE")}


def test_the_picture_of_the_runs_shows_both_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".dvc/plots", "docs", "metrics"):
        (tmp_path / name).mkdir(parents=True)
    for file in (overview.TEMPLATE, Path("dvc.yaml")):
        shutil.copy(PROJECT / file, tmp_path / file)
    rows = {"run": "a", "dataset": "d", "system": ["no defence", "REFINE"]}
    figures: dict[str, Any] = {"benign_accuracy": [0.9, 0.8], "attack_success_rate": [1.0, 0.0]}
    monkeypatch.setattr(overview, "table", lambda _project: pd.DataFrame(rows | figures))
    overview.write(tmp_path)
    pixels = np.asarray(Image.open(io.BytesIO((tmp_path / overview.PICTURE).read_bytes())).convert("RGB")).astype(int)
    red, green = (pixels[..., 0] - pixels[..., 1] > 60), (pixels[..., 1] - pixels[..., 0] > 60)
    lowest_red, lowest_green = (np.argwhere(colour)[:, 0].max() / len(pixels) for colour in (red, green))
    assert lowest_red < 0.3  # an ASR of 1 is at the top, as the legend is
    assert lowest_green > 0.8
