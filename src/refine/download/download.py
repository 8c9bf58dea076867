"""Writes a data set as folders of shards."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from refine.core.bounds import MOST_SHARDS
from refine.core.errors import UserError
from refine.core.files import new_folder
from refine.core.progress import progress
from refine.download.source import Splits
from refine.shards.format.manifest import Description
from refine.shards.writer import write_shards


def write_splits(splits: Splits, source: str, train: Path, test: Path | None, samples_per_shard: int) -> int:
    """Writes one split or both; no folder appears before all are complete.

    Args:
        splits: of the data set.
        source: its name.
        train: folder to write.
        test: likewise; None where the test split is not wanted.
        samples_per_shard: images per shard.

    Raises:
        UserError: a split would take too many shards, or an image cannot be read.

    Returns:
        Number of images written.
    """
    most = max(splits.sizes if test is not None else splits.sizes[:1])
    if most > MOST_SHARDS * samples_per_shard:
        raise UserError(
            f"download.samples_per_shard: {most:,} images in shards of {samples_per_shard} "
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
    test_labeled = splits.labeled if splits.test_labeled is None else splits.test_labeled
    wanted = [(train, splits.train, splits.sizes[0], splits.labeled)]
    if test is not None:
        wanted.append((test, splits.test, splits.sizes[1], test_labeled))
    written = 0
    with ExitStack() as stack:
        parts = [stack.enter_context(new_folder(folder)) for folder, *_ in wanted]  # the training split appears last
        for folder, (_, samples, size, labeled) in zip(parts, wanted, strict=True):
            counted = progress(samples, f"write {folder.name.split('.')[1]}", total=size, unit="image")
            written += write_shards(folder, counted, description.model_copy(update={"labeled": labeled})).samples
    return written
