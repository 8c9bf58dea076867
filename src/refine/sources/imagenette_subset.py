"""`imagenette_subset`: a part of Imagenette at 224x224 in a mirror, photographs of ten classes of ImageNet.

1,000 training and 400 test images, at even steps of a copy of Imagenette that somebody else had resized and compressed
once more. It is not published; REFINE_MIRROR has to name a folder with `imagenette-224-subset`. Accuracies cannot be
compared with those on the whole data set, which is the source `imagenette`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from refine.download import imagenet, mirrored
from refine.download.source import Source, Splits

FOLDER = "imagenette-224-subset"
SHA256 = "c97aeff17dfa593e84d3abccc4e028e22a654d68c75e52134b630db38adf0143"


class Params(imagenet.LikeImageNet):
    """How the photographs become squares is all that can be set."""


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are sorted by class and name.

    Raises:
        UserError: the mirror does not hold the folder, or a file in it is not the known one.
    """
    folder = mirrored.folder(source, FOLDER, SHA256)
    numbers = {wnid: label for label, wnid in enumerate(imagenet.TEN)}
    train, test = (
        [(name, numbers[PurePosixPath(name).parts[1]]) for name in folder.split(part)] for part in ("train", "val")
    )
    return Splits(
        classes=list(imagenet.TEN.values()),
        side=params.side,
        train=folder.samples(train, params),
        test=folder.samples(test, params),
        sizes=(len(train), len(test)),
        mean=imagenet.MEAN,
        std=imagenet.STD,
    )
