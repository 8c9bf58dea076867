"""The page of `dvc plots` without a network.

DVC's own page loads the library that draws (vega) from an address on the web, and stays empty without one. `install`
writes a page template that carries the library, from the package vl-convert-python, and names it in
`.dvc/config.local`; from then on `dvc plots show` and `dvc plots diff` write pages that can be opened anywhere.
"""

from __future__ import annotations

from pathlib import Path

import vl_convert
from dvc.config import Config

from refine.core.errors import UserError
from refine.core.files import new_file
from refine_lab.pages.overview import VEGA_LITE

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
