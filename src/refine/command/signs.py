"""`refine signs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from refine.proof.judging.verdict import SignResult


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--defended", type=click.Path(path_type=Path), help="Folder of `refine defend`, or of a defense alone.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the whole result.")
@click.option("--settings", "file", type=click.Path(path_type=Path), help="YAML file with other settings of the signs.")
def signs(model: Path, images: Path, defended: Path | None, out: Path | None, file: Path | None) -> None:
    """Look for signs of a backdoor in the classifier in the folder MODEL.

    IMAGES is a folder of images of the kind that the classifier is made for. They need no labels, and may be in
    subfolders. Each sign has a score, which is held against a threshold that was measured on models known to be clean
    or to have a backdoor. A sign that is not found proves nothing.
    """
    import logging
    import sys

    from refine.command.images import listed
    from refine.core.errors import UserError
    from refine.core.files import write_json
    from refine.core.machine import machine
    from refine.defending.loading import load
    from refine.deployment.folder import DEFENSE, is_defended
    from refine.deployment.inputs import read_files
    from refine.models import classifier as classifiers
    from refine.models.device import compute
    from refine.proof.judging.examine import examine
    from refine.proof.judging.params import SignsParams, read_params
    from refine.proof.judging.thresholds import read_thresholds

    params = read_params(file) if file else SignsParams()
    if out is not None and out.is_dir():
        raise UserError(f"{out} is a folder; give the name of a file")
    thresholds, files = read_thresholds(), listed([images])
    classifier = classifiers.load(model)
    if defended and is_defended(defended):
        defended = defended / DEFENSE
    system = load(defended, model) if defended else None
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    resolved = compute(machine())
    names = [click.format_filename(path.relative_to(images) if images.is_dir() else path) for path in files]
    pixels = read_files(classifier[1], files)
    result = examine(classifier, pixels, names, params, thresholds, resolved, system)
    if out is not None:
        write_json(out, result.model_dump())
    click.echo("\n\n".join(_told(sign) for sign in result.signs))
    click.echo(f"\nMeasured on: {result.calibrated_on}.")


def _told(sign: SignResult) -> str:
    """What a sign says, as a paragraph."""
    import textwrap

    score = "no score" if sign.score is None else f"score {sign.score:.2f}"
    lines = [sign.title, f"{sign.decision}: {sign.reason}; {score}"]
    if sign.suspicious_classes:
        lines.append(f"suspicious: {', '.join(sign.suspicious_classes)}")
    if sign.alarms is not None:
        true, false = sign.alarms.true_alarms, sign.alarms.false_alarms
        lines.append(
            f"of models that were known, it suspects {true.count} of {true.of} with a backdoor and {false.count} of "
            f"{false.of} without"
        )
    lines += textwrap.wrap(sign.meaning, 98)
    shown = sign.changed[:10]
    lines += [f"{each.image}: {each.before} {each.before_probability:.2f}, then {each.after}" for each in shown]
    if len(sign.changed) > len(shown):
        lines.append(f"and {len(sign.changed) - len(shown)} more, see --out")
    return "\n  ".join(lines)
