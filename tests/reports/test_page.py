"""The page of plots and the picture of all runs, as a browser without a network shows them."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from PIL import Image
from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from refine.core.errors import UserError
from refine.reports import overview, page
from refine.reports.run import HOME, read_all
from support import PROJECT, WATCHDOG, environment, is_one_sentence, run

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
    told = run(tmp_path, "dvc", "config", "--local", "plots.html_template").stdout.strip()
    assert tmp_path / ".dvc" / told == template


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
    for name, panels, epochs in (("Attack_training", 2, "1"), ("Defense_training", 3, "12")):
        svg = vl_convert.vegalite_to_svg(drawn[name], vl_version=overview.VEGA_LITE)
        points = re.findall(r'aria-roledescription="point"', svg)
        ticks = re.findall(r'text-anchor="middle"[^>]*font-size="10px"[^>]*>([^<]*)</text>', svg)
        assert len(points) == panels * len(epochs)
        assert set(ticks) - {""} == set(epochs)


def test_files_that_plots_need_and_that_are_missing_are_told_with_a_remedy(plotted: Path) -> None:
    assert page.missing(plotted) == []
    page.check(plotted)
    (plotted / "metrics/plots/snapshots.csv").unlink()
    with pytest.raises(
        UserError, match=r"snapshots.csv is missing, without which `dvc plots` draws no page; type `dvc"
    ):
        page.check(plotted)
    shutil.rmtree(plotted / "models")
    env = environment(PYTHONPATH="src")
    result = run(plotted, "python", "-m", "refine.reports.page", "--check", env=env)
    assert is_one_sentence(result, "models/backdoor/history.csv and 3 more files are missing", "./run")


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
    assert set(rows.groupby("run")["system"].agg(tuple)) == {("no defense", "REFINE")}


def test_the_picture_of_the_runs_shows_both_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".dvc/plots", "docs", "metrics"):
        (tmp_path / name).mkdir(parents=True)
    for file in (overview.TEMPLATE, Path("dvc.yaml")):
        shutil.copy(PROJECT / file, tmp_path / file)
    rows = {"run": "a", "dataset": "d", "system": ["no defense", "REFINE"]}
    rows |= {"preset": "p", "attack": "t", "variant": "default", "seed": 1}
    figures: dict[str, Any] = {"benign_accuracy": [0.9, 0.8], "attack_success_rate": [1.0, 0.0]}
    figures["robust_accuracy"] = [0.1, 0.7]
    monkeypatch.setattr(overview, "table", lambda _project: pd.DataFrame(rows | figures))
    overview.write(tmp_path)
    picture = vl_convert.svg_to_png((tmp_path / overview.PICTURE).read_text(encoding="utf-8"))
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)[:, :-120]  # without the legend
    third = pixels.shape[1] // 3
    attack = pixels[:, third : 2 * third]  # the panel in the middle
    red, green = (attack[..., 0] - attack[..., 1] > 60), (attack[..., 1] - attack[..., 0] > 60)
    assert np.argwhere(red)[:, 1].mean() > np.argwhere(green)[:, 1].mean() + third / 2


def test_each_data_set_has_panels_with_axes_of_its_own(tmp_path: Path) -> None:
    """Runs of one data set far from those of another take no room from them."""
    runs = pd.read_csv(PROJECT / overview.TABLE)
    point, positions = re.compile(r'run: (mnist5k[^;]*);[^>]* transform="translate\(([^)]*)\)'), []
    for others in (0.9, 0.1):
        moved = runs.assign(benign_accuracy=runs["benign_accuracy"].where(runs["dataset"] == "mnist5k", others))
        drawing = overview._drawing(PROJECT, moved)
        positions.append(sorted(point.findall(vl_convert.vegalite_to_svg(drawing, vl_version=overview.VEGA_LITE))))
    assert positions[0] == positions[1]
    assert len(positions[0]) == 3 * (runs["dataset"] == "mnist5k").sum()
