"""`refine defend`."""

from __future__ import annotations

from pathlib import Path

import click

from refine.command.images import LABELED


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--params",
    "file",
    type=click.Path(path_type=Path),
    help="Parameters file whose section train_refine holds other settings than the built-in ones.",
)
@LABELED
@click.option("--report", is_flag=True, help="Also test it and write OUT/report.html, see `refine report`.")
def defend(model: Path, images: Path, out: Path, file: Path | None, check: Path | None, report: bool) -> None:
    """Defend the classifier in the folder MODEL with REFINE.

    IMAGES is a folder of clean images without triggers, of the kind that the classifier is made for. They need no
    labels, and may be in subfolders. OUT is a new folder that takes the defended model: a copy of the classifier, the
    defense, and a record of what was done. Use it with `refine predict OUT` and `refine export OUT`.

    A tenth of the images, at most 1,000, is not trained on; on these, the answers of the defended model are compared
    with those of the classifier. If you interrupt the command, type it again to go on. The training runs in one
    process.
    """
    import logging
    import sys

    from refine.core.machine import machine
    from refine.core.params import ParamsFile
    from refine.defenses.refine.training.params import TrainRefineParams

    params = ParamsFile(file).section("train_refine", TrainRefineParams) if file else None

    from refine.command.images import listed
    from refine.deployment.defend import defend as defended
    from refine.deployment.folder import LITTLE_AGREEMENT
    from refine.deployment.labeled import accuracies, labeled, refuse_shared
    from refine.models.card import read_card
    from refine.models.classifier import ClassifierCard
    from refine.models.device import compute

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    resolved = compute(machine())
    files = listed([images])
    if report:  # which comes after hours of training
        from refine.proof.stress.params import StressParams
        from refine.proof.stress.parts import sizes_of

        sizes_of(len(files), StressParams().parts)
    card = read_card(model, ClassifierCard)
    checked = labeled(check, card) if check else None
    if checked:
        refuse_shared(checked, files)
    made = defended(model, files, out, params, resolved)
    click.echo(
        f"{out} holds the defended model, trained on {made.images.count - made.images.held_out:,} images; it agrees "
        f"with {model} on {made.agreement.same:,} of {made.agreement.images:,} others "
        f"({100 * made.agreement.share:.1f} %)"
    )
    if made.agreement.share < LITTLE_AGREEMENT:
        click.echo("This is low; more images help most.")
    known = len(card.classes)
    if made.images.classes < known:
        click.echo(
            f"The classifier sees only {made.images.classes:,} of its {known:,} classes in these images (others hardly "
            "ever), and the defended model cannot know the others: give images of all kinds."
        )
    if report:
        from refine.command.report import write
        from refine.proof.report.make import Wanted

        write(out, files, Wanted(check=check), resolved)
    elif checked:
        found = accuracies(out, checked, resolved)
        click.echo(
            f"accuracy on {found.images:,} images in {check}: {100 * found.defended / found.images:.1f} %, and without "
            f"the defense {100 * found.delivered / found.images:.1f} %"
        )
