"""The stage download: writes a data set as two folders of shards."""

from __future__ import annotations

from pathlib import Path

from refine.core.bounds import MOST_SHARDS
from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.progress import progress
from refine.download.source import Splits
from refine.shards.format.manifest import Description
from refine.shards.writer import write_shards


def write_splits(splits: Splits, source: str, train: Path, test: Path, samples_per_shard: int) -> int:
    """Writes both splits; neither folder appears before both are complete.

    Raises:
        UserError: a split would take too many shards, or an image cannot be read.

    Returns:
        Number of images written.
    """
    if max(splits.sizes) > MOST_SHARDS * samples_per_shard:
        raise UserError(
            f"download.samples_per_shard: {max(splits.sizes):,} images in shards of {samples_per_shard} "
            f"would make more than {MOST_SHARDS:,} shards; raise it"
        )
    description = Description(
        source=source,
        classes=splits.classes,
        side=splits.side,
        mean=list(splits.mean),
        std=list(splits.std),
        samples_per_shard=samples_per_shard,
        labeled=splits.labeled,
    )
    written = 0
    with new_folder(test) as test_part, new_folder(train) as train_part:
        test_labeled = splits.labeled if splits.test_labeled is None else splits.test_labeled
        for folder, samples, size, labeled in (
            (train_part, splits.train, splits.sizes[0], splits.labeled),
            (test_part, splits.test, splits.sizes[1], test_labeled),
        ):
            counted = progress(samples, f"write {folder.name.split('.')[1]}", total=size, unit="image")
            written += write_shards(folder, counted, description.model_copy(update={"labeled": labeled})).samples
    return written
