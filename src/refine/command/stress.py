"""`refine stress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from refine.proof.stress.params import StressParams
    from refine.shards.reading.reader import Split


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("stress.json"), show_default=True, help="New file."
)
@click.option(
    "--params",
    "file",
    type=click.Path(path_type=Path),
    help="Parameters file whose section train_refine holds other settings than those of `refine defend`.",
)
@click.option("--settings", type=click.Path(path_type=Path), help="YAML file with settings of the stress test.")
@click.option("--labeled", is_flag=True, help="IMAGES are shards with true labels: measure the accuracy as well.")
def stress(model: Path, images: Path, out: Path, file: Path | None, settings: Path | None, labeled: bool) -> None:
    """Plant known backdoors into copies of a model, defend the copies and measure what is left.

    MODEL is the folder of a classifier. IMAGES is a folder of clean images as for `refine defend`, or a folder of
    shards. The model itself is not changed. An interrupted test goes on after the last plant that was finished when the
    same command is typed again.
    """
    import logging
    import sys

    from refine.core.errors import UserError
    from refine.core.files import remove, write_json
    from refine.core.machine import machine
    from refine.core.params import ParamsFile
    from refine.defenses.refine.training.params import TrainRefineParams

    recipe = ParamsFile(file).section("train_refine", TrainRefineParams) if file else None
    params = _settings(settings)
    if out.exists():
        raise UserError(f"{out} already exists; give another file, or remove it")

    from refine.models.device import compute
    from refine.proof.stress.defender import built_in_defender, refine_defender
    from refine.proof.stress.stress import stress_test
    from refine.proof.stress.table import render
    from refine.training.training_set import Resident

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    resolved = compute(machine())
    work = out.with_name(f".{out.name}.plants")
    split = _images(images, model, labeled)
    own = Resident(split.images, ())
    defender = refine_defender(recipe, resolved) if recipe else built_in_defender(model, own, resolved)
    try:
        result = stress_test(model, split, params, defender, resolved, work, labeled)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; type the same command again, finished plants are kept") from None
    write_json(out, result.model_dump())
    remove(work)
    click.echo(render(result))


def _settings(file: Path | None) -> StressParams:
    from pydantic import ValidationError

    from refine.core.errors import UserError
    from refine.core.params import sentence
    from refine.core.yaml12 import load
    from refine.proof.stress.params import StressParams

    try:
        return StressParams.model_validate(load(file) if file else {})
    except ValidationError as error:
        raise UserError(f"{file}: {sentence('stress', error)}") from None


def _images(images: Path, model: Path, labeled: bool) -> Split:
    """The images, as the model takes them."""
    from refine.command.images import listed
    from refine.core.errors import UserError
    from refine.core.machine import machine
    from refine.deployment.inputs import read_files, unlabeled
    from refine.models.card import read_card
    from refine.models.classifier import ClassifierCard
    from refine.shards.format.manifest import NAME
    from refine.shards.reading.reader import read_split

    if (images / NAME).is_file():
        return read_split(images, not labeled, machine())
    if labeled:
        raise UserError(f"{images} is no folder of shards, so that it has no labels; leave --labeled out")
    card = read_card(model, ClassifierCard)
    return unlabeled(read_files(card, listed([images])), card)
