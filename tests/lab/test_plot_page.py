"""The page of plots, as a browser without a network shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import vl_convert
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from refine.core.errors import UserError
from refine_lab import plot_page as page
from refine_lab.pages import overview
from support import PROJECT, WATCHDOG, run

MARKS = "g[class*=mark-line] path, g[class*=mark-symbol] path, g[class*=mark-rect] path"


@pytest.fixture(scope="module", params=[("show",), ("diff", "HEAD")], ids=lambda command: command[0])
def drawn(request: pytest.FixtureRequest, browser: WebDriver, tmp_path_factory: pytest.TempPathFactory) -> WebDriver:
    """The page of this checkout's finished run, open."""
    if not (PROJECT / "metrics/plots/refine").is_dir():
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
    assert len(named) == 10

    def marks(browser: WebDriver) -> dict[str, bool]:
        found = {}
        for name in named:
            (place,) = browser.find_elements("id", name)
            found[name] = any(path.get_attribute("d") for path in place.find_elements("css selector", MARKS))
        return found

    WebDriverWait(drawn, WATCHDOG).until(lambda browser: all(marks(browser).values()), f"nothing drawn: {marks(drawn)}")


def test_every_picture_is_there(drawn: WebDriver) -> None:
    widths = drawn.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) >= 3
    assert all(width > 100 for width in widths)


def test_the_console_is_empty(drawn: WebDriver) -> None:
    assert drawn.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_a_plot_without_data_is_left_out_of_the_page(browser: WebDriver, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    text = page.install(tmp_path).read_text(encoding="utf-8")
    point = '{"data": {"values": [{"a": 1}]}, "mark": "point", "encoding": {"x": {"field": "a"}}}'
    plots = "".join(
        f"<div id='{name}'><script>vegaEmbed('#{name}', {plot});</script></div>"
        for name, plot in (("empty", "{}"), ("full", point))
    )
    (tmp_path / "index.html").write_text(text.replace("{plot_divs}", plots).replace("{refresh_tag}", ""), "utf-8")
    browser.get(f"file://{tmp_path}/index.html")
    WebDriverWait(browser, 20).until(lambda opened: opened.find_elements("css selector", "#full path"))
    assert browser.find_elements("id", "empty") == []
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


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
    named = run(tmp_path, "dvc", "config", "--local", "plots.html_template").stdout.strip()
    assert tmp_path / ".dvc" / named == template


def test_another_template_that_somebody_set_stays(tmp_path: Path) -> None:
    subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["dvc", "config", "plots.html_template", "own.html"], cwd=tmp_path, check=True)
    with pytest.raises(UserError, match=r"DVC is set to another page, own\.html; type `dvc plots show --html-template"):
        page.install(tmp_path)
    assert run(tmp_path, "dvc", "config", "plots.html_template").stdout.strip() == "own.html"


@pytest.fixture
def plotted(repo: Path) -> Path:
    """A finished project with templates of plots and a table of runs."""
    shutil.copytree(PROJECT / overview.TEMPLATE.parent, repo / overview.TEMPLATE.parent, dirs_exist_ok=True)
    shutil.copy(PROJECT / overview.TABLE, repo / overview.TABLE)
    return repo


def test_what_dvc_writes_with_it_needs_no_network(plotted: Path, tmp_path: Path) -> None:
    page.install(plotted)
    result = run(plotted, "dvc", "plots", "show", "-o", str(tmp_path / "out"))
    assert (result.returncode, result.stderr) == (0, "")
    text = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "<h1>refine" in text
    assert 'id = "Defense_training"' in text
    assert "<script src" not in text


def test_curves_show_a_panel_for_each_figure_a_point_for_each_epoch_and_whole_epochs(
    plotted: Path, tmp_path: Path
) -> None:
    """Of one epoch of the attack, none of the encoder and two of the defense."""
    result = run(plotted, "dvc", "plots", "show", "-o", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    drawn = dict(re.findall(r'id = "([^"]+)">\s*<script[^>]*>\s*var spec = (.*);\s*vegaEmbed', text))
    assert json.loads(drawn["Encoder_training"]) == {}
    for name, panels, epochs in (("Attack_training", 2, "1"), ("Defense_training", 2, "12")):
        svg = vl_convert.vegalite_to_svg(drawn[name], vl_version=overview.VEGA_LITE)
        points = re.findall(r'aria-roledescription="point"', svg)
        ticks = re.findall(r'text-anchor="middle"[^>]*font-size="10px"[^>]*>([^<]*)</text>', svg)
        assert len(points) == panels * len(epochs)
        assert set(ticks) - {""} == set(epochs)


def test_outside_a_dvc_project_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no DVC project"):
        page.install(tmp_path)
    assert list(tmp_path.iterdir()) == []
