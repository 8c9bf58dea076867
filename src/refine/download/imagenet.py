"""What data sets of photographs share: the statistics of ImageNet, and plain names for its classes."""

from __future__ import annotations

import re
from pathlib import Path

from refine.download.fitting import Fit, Fitted, FittedSide
from refine.download.own_images import lines

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, by which all classifiers of torchvision trained on it normalize."""

TEN = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
"""The classes of Imagenette, by the names of their folders, in the order of the labels."""

_TABLES = ("LOC_synset_mapping.txt", "words.txt", "classes.tsv")
_ENTRY = re.compile(r"(n[0-9]{8})[\t ]+(.+)")


class LikeImageNet(Fitted):
    """Photographs as classifiers of ImageNet take them: 224 x 224 pixels, with their aspect ratio.

    `resize: 256` beforehand leaves the edges out, as these classifiers are tested.
    """

    side: FittedSide = 224
    fit: Fit = "crop"


def names(root: Path, wnids: list[str]) -> list[str]:
    """Plain names of classes that are given by their numbers in WordNet, such as `tench` for n01440764.

    Args:
        root: a folder that may hold a table of names as ImageNet (`LOC_synset_mapping.txt`) or Tiny-ImageNet
            (`words.txt`) has it.
        wnids: the numbers; what has no name, or a name that another class has, too, keeps or adds its number.
    """
    known: dict[str, str] = {}
    for table in _TABLES:
        if (root / table).is_file():
            for line in lines(root / table, "replace it or remove it"):
                if entry := _ENTRY.fullmatch(line):
                    known.setdefault(entry[1], entry[2].split(",")[0].strip())
    plain = [known.get(wnid, wnid) for wnid in wnids]
    return [f"{name} ({wnid})" if plain.count(name) > 1 else name for name, wnid in zip(plain, wnids, strict=True)]
