"""The files of a comparison."""

from __future__ import annotations

from pathlib import Path

from refine.core.errors import UserError
from refine.core.files import new_file
from refine_lab.lists.rows import read_rows
from refine_lab.pages.comparison.curves import over_images, over_variants
from refine_lab.pages.comparison.frame import measurements
from refine_lab.pages.comparison.pictures import heat_map, small_multiples
from refine_lab.pages.comparison.tables import latex


def write(file: Path, folder: Path, project: Path) -> list[Path]:
    """Writes tables and pictures of the recorded runs of a list.

    Args:
        file: of the list.
        folder: takes `measurements.csv` (a line for each run), `table.tex`, `heat-map.svg`, `defenses.svg`, and where
            there is something to draw, `over-images.svg` and `over-variants.svg`; what else is in it stays.
        project: with the recorded runs.

    Returns:
        The files.

    Raises:
        UserError: no run of the list with an attack is recorded.
    """
    listed = read_rows(file)
    measured = measurements(listed, project)
    if measured.empty:
        raise UserError(f"no run of {file} with an attack is recorded; type `refine run-list {file}` first")
    contents = {
        "measurements.csv": measured.round(6).to_csv(index=False, lineterminator="\n"),
        "table.tex": latex(measured) + "\n",
        "heat-map.svg": heat_map(measured) + "\n",
        "defenses.svg": small_multiples(measured) + "\n",
    }
    order = [row.variant for row in listed.rows]
    drawn = {"over-images.svg": over_images(measured), "over-variants.svg": over_variants(measured, order)}
    contents |= {name: picture + "\n" for name, picture in drawn.items() if picture}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        with new_file(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return [folder / name for name in contents]
