"""How many images an attack holds in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from refine.core.errors import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from refine.poisoning.attack import Setting
    from refine.shards.reading.pixels import Images

MOST_IMAGES = 1_000_000_000
LearnsFrom = Annotated[int, Field(ge=2, le=MOST_IMAGES)] | None
"""How many training images an attack trains a network of its own on, drawn at random; None: all."""


def learned_from(
    images: Images, labels: Tensor, most: LearnsFrom, name: str, setting: Setting, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Images in memory that an attack trains a network on, uint8 [n, 3, side, side], and their labels, int64 [n].

    Args:
        images: of the training set.
        labels: int64 [N].
        most: how many; they keep their order.
        name: of the parameter that says so, below the section of the attack.
        setting: what the attack is applied to.
        generator: draws them; nothing is drawn where all are taken.

    Raises:
        UserError: they would take more than REFINE_MEMORY.
    """
    import torch

    rows = torch.arange(len(images))
    if most is not None and most < len(images):
        rows = torch.randperm(len(images), generator=generator)[:most].sort().values
    refuse_many(len(rows), "training", setting, f"raise that, or set {setting.section}.{name} to fewer")
    return images[rows], labels[rows]


def refuse_many(count: int, kind: str, setting: Setting, remedy: str | None = None) -> None:
    """Stops an attack that would hold too many images in memory.

    Args:
        count: of images.
        kind: of images, for the message.
        setting: what the attack is applied to.
        remedy: what helps.

    Raises:
        UserError: they would take more than REFINE_MEMORY.
    """
    size = count * 3 * setting.side**2 / 2**20
    if size > setting.machine.memory:
        raise UserError(
            f"the attack {setting.name} holds {count:,} {kind} images in memory, {size:,.0f} MiB, more than "
            f"REFINE_MEMORY; {remedy or 'raise that, take fewer or smaller images, or choose an attack that does not'}"
        )
