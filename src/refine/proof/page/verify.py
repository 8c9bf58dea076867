"""Comparing a report with what it is said to be about."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from refine.core.files import sha256_of
from refine.deployment import folder as deployed
from refine.proof.page.content import Sums
from refine.proof.page.write import read_page

Compared = dict[str, bool | None]
"""For each sum of a report whether it holds; None where there was nothing to compare with."""


def sums_of(folder: Path, images: Sequence[Path], labeled: Sequence[Path] = ()) -> Sums:
    """The sums of what a report is about.

    Args:
        folder: of the defended model, see `deployment.folder`.
        images: files of all images.
        labeled: files of the labeled images.

    Raises:
        UserError: the folder is damaged.
    """
    classifier, defense = (_model_sum(folder / name) for name in (deployed.CLASSIFIER, deployed.DEFENSE))
    return Sums(
        classifier=classifier,
        defense=defense,
        images=_images_sum(images),
        labeled=_images_sum(labeled) if labeled else None,
        code=code_sum(),
    )


def compare(report: Path, folder: Path, images: Sequence[Path], labeled: Sequence[Path]) -> Compared:
    """Computes the sums of a report again.

    Args:
        report: the page.
        folder: of the defended model.
        images: files of all images; none if they are not at hand.
        labeled: likewise.

    Raises:
        UserError: the page holds no report, or a card is missing.
    """
    wanted = read_page(report).sums.model_dump(exclude_none=True)
    found = sums_of(folder, images, labeled).model_dump()
    missing = [name for name, files in (("images", images), ("labeled", labeled)) if not files]
    return {name: None if name in missing else found[name] == wanted[name] for name in wanted}


def code_sum() -> str:
    """One SHA-256 over the code of this package: the names of its files and their sums, in the order of the names."""
    root = Path(str(files("refine")))
    paths = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".html", ".yaml"))
    return deployed.sum_of_lines(f"{path.relative_to(root).as_posix()} {sha256_of(path)}" for path in paths)


def _model_sum(folder: Path) -> str:
    """One SHA-256 over the files of a model folder, in the order of their names."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return deployed.sum_of_lines(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}" for path in paths)


def _images_sum(paths: Sequence[Path]) -> str:
    return deployed.sum_of(sha256_of(path) for path in paths)
