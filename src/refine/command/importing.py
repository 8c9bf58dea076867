"""`refine import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from refine.command.images import LABELED

if TYPE_CHECKING:
    from refine.importing.importing import Imported
    from refine.models.classifier import ClassifierCard

LOW = 0.8
"""Accuracy below which other readings of the images are tried."""


def _triple(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Three numbers with commas between them."""
    if value is None:
        return None
    try:
        red, green, blue = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not three numbers such as 0.5,0.5,0.5") from None
    return red, green, blue


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--architecture", required=True, help="Such as torchvision:resnet50, timm:NAME or resnet18:64.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the model.")
@click.option("--classes", type=click.Path(path_type=Path), help="Text file with a class name per line, in order.")
@click.option("--input-side", type=click.IntRange(1, 1024), help="Height and width of its images, in pixels.")
@click.option("--mean", metavar="R,G,B", callback=_triple, help="Subtracted from pixels in [0, 1].")
@click.option("--std", metavar="R,G,B", callback=_triple, help="What they are divided by then.")
@click.option("--resize", type=click.IntRange(1, 2048), help="The shorter side of an image before its middle is taken.")
@click.option("--interpolation", type=click.Choice(["bilinear", "bicubic", "lanczos", "nearest"]))
@click.option("--bgr", is_flag=True, help="It was trained on images in the order blue, green, red.")
@click.option("--small-stem/--no-small-stem", default=None, help="First layers for small images; found by default.")
@LABELED
def import_(
    file: Path,
    architecture: str,
    out: Path,
    classes: Path | None,
    input_side: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    resize: int | None,
    interpolation: str | None,
    bgr: bool,
    small_stem: bool | None,
    check: Path | None,
) -> None:
    """Make a model folder of the weights in FILE.

    FILE is a PyTorch state dict (.pth, .pt) or a safetensors file, also within a checkpoint of a training, or an ONNX
    file of a convolutional network. It may come from anybody: no program in it is run. Options that are left out are
    taken from the library of the architecture.
    """
    from refine.core.errors import UserError
    from refine.models.architecture import from_text

    if out.exists():
        raise UserError(f"{out} already exists; give another folder, or remove it")
    of = from_text(architecture)

    from refine.importing.importing import Asked, imported, write

    names = _names(classes) if classes else None
    asked = Asked(of, small_stem, names, mean, std, input_side, resize, interpolation, bgr)
    found = imported(file, asked)
    click.echo(described(found.card))
    for remark in found.remarks:
        click.echo(f"note: {remark}")
    if check:
        _check(found, check)
    write(found, out)
    click.echo(f"{out} is the model; try `refine predict {out} IMAGE`")


def described(card: ClassifierCard) -> str:
    """What a model is taken to be, in a few lines."""
    settings = ", ".join(f"{name} {value}" for name, value in card.architecture.model_dump().items() if name != "name")
    prepared = card.preparation
    shaped = "resized to that"
    if prepared and prepared.resize and prepared.keep_aspect:
        shaped = f"shorter side resized to {prepared.resize} ({prepared.interpolation}), then the middle"
    classes = f"{', '.join(card.classes[:5])}{', ...' if len(card.classes) > 5 else ''}"
    mean, std = _listed(card.normalization.mean), _listed(card.normalization.std)
    lines = (
        f"architecture   {card.architecture.name} ({settings})",
        f"classes        {len(card.classes)}: {classes}",
        f"images         {card.input_side}x{card.input_side} pixels, RGB; {shaped}",
        f"normalization  mean {mean}, std {std}",
    )
    return "\n".join(lines)


def _listed(values: list[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _names(path: Path) -> list[str]:
    from refine.core.errors import UserError
    from refine.download.own_images import lines

    names = lines(path, "give a text file with a class name per line")
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"{path} names {double[:100]} twice; give each class a name of its own")
    return names


def _check(found: Imported, folder: Path) -> None:
    from refine.core.machine import machine
    from refine.deployment.labeled import labeled
    from refine.importing.hints import accuracy, hints
    from refine.models.device import compute

    resolved = compute(machine())
    found.classifier.to(resolved.device)
    checked = labeled(folder, found.card)
    images, labels = checked.images, checked.labels
    share = accuracy(found.classifier, images, labels)
    click.echo(f"accuracy       {share:.1%} of {len(labels)} images in {folder}")
    if share >= LOW:
        return
    better = hints(found.classifier, images, labels, len(found.card.classes))
    for hint in better:
        click.echo(f"hint: {hint}")
    if not better:
        click.echo("hint: if it should be higher, look at --input-side, --resize and whether these are its classes")
