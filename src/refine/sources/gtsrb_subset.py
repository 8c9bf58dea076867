"""`gtsrb_subset`: a part of GTSRB at 32x32 in a mirror, 43 German traffic signs, unbalanced.

9,803 training and 4,210 test images: every fourth training image and every third test image, scaled to 32 pixels by
somebody else. It is not published; REFINE_MIRROR has to name a folder with `gtsrb-32-subset`. Accuracies cannot be
compared with those on the whole data set, which is the source `gtsrb`.

With `part: dev`, the official test images stay unseen: a tenth of the training images of each class are the test
images. They are whole tracks, as the images of a track show the very same sign.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from refine.core.params import Section, Seed
from refine.download import mirrored, signs
from refine.download.fitting import Fitted
from refine.download.source import Source, Splits

FOLDER = "gtsrb-32-subset"
SHA256 = "f88c9fca2b86c9094a09611b94660bc5637182c12989dcbf494e7da693b0f738"
SIDE = 32
DEV_SHARE = 0.1


class Params(Section):
    """Attributes:
    part: what the test images are: those of GTSRB (`test`), or training images that are held out (`dev`).
    split_seed: for `dev`, seed of the draw of the tracks that are held out.
    """

    part: Literal["test", "dev"] = "test"
    split_seed: Seed = 0


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are sorted by class and name.

    Raises:
        UserError: the mirror does not hold the folder, or a file in it is not the known one.
    """
    folder = mirrored.folder(source, FOLDER, SHA256)
    train, test = folder.split("train"), folder.split("test")
    if params.part == "dev":
        train, test = by_track(train, params.split_seed)
    labeled = [[(name, int(PurePosixPath(name).parts[1])) for name in part] for part in (train, test)]
    fitted = Fitted(side=SIDE)
    return Splits(
        classes=signs.CLASSES,
        side=SIDE,
        train=folder.samples(labeled[0], fitted),
        test=folder.samples(labeled[1], fitted),
        sizes=(len(train), len(test)),
        mean=signs.MEAN,
        std=signs.STD,
    )


def by_track(names: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Holds out whole tracks of each class, until that is a tenth of its images.

    Args:
        names: `train/CLASS/TRACK_FRAME.png`.
        seed: of the draw.

    Returns:
        The names that are left, and those that are held out, in their order.
    """
    tracks: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        path = PurePosixPath(name)
        tracks[path.parts[1]][path.stem.partition("_")[0]].append(name)
    random = np.random.RandomState(seed)
    held_out: set[str] = set()
    for label in sorted(tracks):
        of = list(tracks[label].values())
        wanted, found = DEV_SHARE * sum(map(len, of)), 0
        for number in random.permutation(len(of))[: len(of) - 1].tolist():
            if found >= wanted:
                break
            held_out.update(of[number])
            found += len(of[number])
    return [name for name in names if name not in held_out], [name for name in names if name in held_out]
