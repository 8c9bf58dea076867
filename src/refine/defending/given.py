"""What a defender is given: its settings, and the images of its data regime as shards of their own.

A defense then depends on these alone. It cannot see more than its regime allows: there are no labels in the shards of
unlabeled images, and nothing in those of a poisoned training set tells which images are poisoned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Generator, Tensor

from refine.core.files import new_folder, write_json
from refine.core.params import Section
from refine.core.progress import progress
from refine.defending.material import IMAGES, NAME, Given
from refine.defending.params import DefenseDataParams
from refine.defending.protocol.defense import Regime
from refine.defending.share import chosen
from refine.shards.format.manifest import complete
from refine.shards.reading.reader import Shards
from refine.shards.writer import Sample, write_shards

_SOURCES = {"unlabeled": "raw", "labeled": "raw", "poisoned_train": "poisoned"}


def give(
    defense: str, regime: Regime, settings: Section, data: DefenseDataParams, training_sets: dict[str, Path], out: Path
) -> Given:
    """Writes what a defender is given.

    Args:
        defense: its name.
        regime: what it needs.
        settings: of the defense.
        data: how much of the clean images.
        training_sets: folders of shards, `raw` and `poisoned`.
        out: takes `given.json` and, unless the regime is `none`, the shards.

    Raises:
        UserError: the shards are damaged, or the share holds no image.
    """
    with new_folder(out) as part:
        count = 0
        if regime != "none":
            count = _write_images(part / IMAGES, training_sets[_SOURCES[regime]], regime, data)
        given = Given(defense=defense, regime=regime, settings=settings.model_dump(), seed=data.seed, images=count)
        write_json(part / NAME, given.model_dump())
    return given


def _write_images(folder: Path, source: Path, regime: Regime, data: DefenseDataParams) -> int:
    manifest = complete(source)
    fraction = {"labeled": data.labeled, "unlabeled": data.unlabeled}.get(regime, 1.0)
    draws = Generator().manual_seed(data.seed)
    given = chosen(manifest.samples, fraction, draws, f"defense_data.{regime}")
    folder.mkdir()
    return write_shards(folder, _samples(source, given, regime != "unlabeled"), manifest.description).samples


def _samples(source: Path, given: Tensor, labels: bool) -> Iterator[Sample]:
    """The given images of a folder of shards without their `infos`, and with label 0 unless `labels` are kept."""
    row = 0
    for chunk in progress(Shards(source), "give images to the defender", unit="shard"):
        for key, image, label in zip(
            chunk.keys.tolist(), chunk.images.permute(0, 2, 3, 1).numpy(), chunk.labels.tolist(), strict=True
        ):
            if given[row]:
                yield Sample(key, image, label if labels else 0, {})
            row += 1
