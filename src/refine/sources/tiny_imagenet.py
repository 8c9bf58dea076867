"""`tiny_imagenet`: photographs of 200 classes of ImageNet at 64x64, from the folder that its archive unpacks to.

100,000 training images, and as test images the 10,000 of its folder `val` (those of `test` have no published labels).
Unpack `tiny-imagenet-200.zip` (http://cs231n.stanford.edu/tiny-imagenet-200.zip) in `data/own/images`.

Source: Y. Le, X. Yang, "Tiny ImageNet Visual Recognition Challenge", 2015. Mean and standard deviation as in
BackdoorBench.
"""

from __future__ import annotations

from pathlib import Path

from refine.core.errors import UserError
from refine.core.files import inside
from refine.download import imagenet
from refine.download.fitting import Fitted
from refine.download.own_images import entries, lines, samples
from refine.download.source import Source, Splits


class Params(Fitted):
    """Attributes:
    path: the unpacked folder, inside `data/own/images`.
    """

    path: str = "data/own/images/tiny-imagenet-200"


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are sorted by class and name.

    Raises:
        UserError: the path is outside `data/own/images`, the folder has another layout, or a file is no image.
    """
    root = inside(source.own_images, params.path)
    if not (root / "train").is_dir() or not (root / "val/images").is_dir():
        raise UserError(f"{root} needs the folders train and val/images; unpack tiny-imagenet-200.zip there")
    wnids = [folder.name for folder in entries(root / "train") if folder.is_dir()]
    numbers = {wnid: label for label, wnid in enumerate(wnids)}
    train = [(path, numbers[wnid]) for wnid in wnids for path in entries(root / "train" / wnid / "images")]
    table = root / "val/val_annotations.txt"
    rows = [line.split("\t") for line in lines(table, "unpack tiny-imagenet-200.zip again")]
    if any(len(row) < 2 or row[1] not in numbers for row in rows):
        raise UserError(f"{table} names a class without training images; unpack tiny-imagenet-200.zip again")
    test = [(root / "val/images" / Path(row[0]).name, numbers[row[1]]) for row in rows]
    return Splits(
        classes=imagenet.names(root, wnids),
        side=params.side,
        train=samples(root, train, params),
        test=samples(root, sorted(test, key=lambda pair: (pair[1], pair[0].name)), params),
        sizes=(len(train), len(test)),
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2302, 0.2265, 0.2262),
    )
