"""The page of `dvc plots` without a network: `python -m refine.reports.page`, once in a checkout; `./run` does it.

    python -m refine.reports.page           writes the page's template
    python -m refine.reports.page --check   says which files are missing that plots are drawn from

DVC's own page loads the library that draws (vega) from an address on the web, and stays empty without one. This
command writes a page template that carries the library, from the package vl-convert-python, and names it in
`.dvc/config.local`; from then on `dvc plots show` and `dvc plots diff` write pages that can be opened anywhere. Where a
file is missing that a plot is drawn from, DVC writes no page at all and hardly says why.
"""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path

import vl_convert
import yaml
from dvc.config import Config

from refine.core.errors import UserError, command
from refine.core.files import new_file
from refine.reports.overview import VEGA_LITE

TEMPLATE = "plots/page.html"
"""In the folder of DVC; ignored by git."""

# The plots that DVC writes name an older version of the language, and hold layers without data and rows of nothing,
# which vega warns about. What has no data at all, such as the encoder's training where there was none, is left out.
_DRAW = """
const whole = (name, value) => name === "row" && JSON.stringify(value) === "{}" ? undefined : value;
const settings = { mode: "vega-lite", renderer: "svg", logLevel: 1 };
window.vegaEmbed = (place, plot) =>
    Object.keys(plot).length
        ? vegaEmbed(place, { ...JSON.parse(JSON.stringify(plot), whole), $schema: undefined }, settings)
        : document.querySelector(place).remove();
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
{refresh_tag}
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>refine: attack, defense and proof</title>
<link rel="icon" href="data:,">
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 82rem; padding: 0 1.5rem; }
main { display: flex; flex-wrap: wrap; gap: 2.5rem 3rem; align-items: flex-start; }
main > div { max-width: 100%; }
main img { max-width: 100%; }
main p { margin: 0 0 .5rem; }
</style>
<script>
{library}
</script>
</head>
<body>
<h1>refine: attack, defense and proof</h1>
<main>
{plot_divs}
</main>
</body>
</html>
"""


def install(project: Path) -> Path:
    """Writes the template and names it in the local settings of DVC.

    Returns:
        The template.

    Raises:
        UserError: the folder is no DVC project, or DVC's settings name another page, which then stays.
    """
    home = project / ".dvc"
    if not home.is_dir():
        raise UserError(f"{project} is no DVC project; go to the checkout's folder")
    library = vl_convert.javascript_bundle(_DRAW, VEGA_LITE)
    # A library that spelled the end of a script would end it.
    page = _PAGE.replace("{library}", library.replace("</script", "<\\/script"))
    with new_file(home / TEMPLATE) as partial:
        partial.write_text(page, encoding="utf-8")
    own = Config(str(home)).get("plots", {}).get("html_template", TEMPLATE)
    if own != TEMPLATE:
        raise UserError(
            f"DVC is set to another page, {own}; type `dvc plots show --html-template {home / TEMPLATE}` for this one"
        )
    with Config(str(home)).edit("local") as settings:
        settings.setdefault("plots", {})["html_template"] = TEMPLATE
    return home / TEMPLATE


def missing(project: Path) -> list[str]:
    """Files that plots are drawn from, as `dvc.yaml` names them, and that are not there."""
    plots = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    named = [[plot] if isinstance(plot, str) else next(iter(plot.values()))["y"] for plot in plots]
    return [path for path in dict.fromkeys(chain(*named)) if not (project / path).is_file()]


def check(project: Path) -> None:
    """Refuses a checkout whose plots cannot be drawn.

    Raises:
        UserError: files are missing.
    """
    absent = missing(project)
    if absent:
        more = f" and {len(absent) - 1} more files are" if len(absent) > 1 else " is"
        raise UserError(
            f"{absent[0]}{more} missing, without which `dvc plots` draws no page; type `dvc checkout`, or `dvc pull` "
            "where the run was computed elsewhere, or ./run to compute it here"
        )


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m refine.reports.page",
        description="Sets up the page of `dvc plots` so that it draws without a network.",
    )
    parser.add_argument("--check", action="store_true", help="only say which files are missing that plots need")
    if parser.parse_args(arguments).check:
        check(Path.cwd())
    else:
        sys.stdout.write(f"{install(Path.cwd())}: `dvc plots show` draws without a network now\n")


if __name__ == "__main__":
    command(main)
