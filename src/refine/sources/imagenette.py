"""`imagenette`: photographs of ten classes of ImageNet that are easily told apart.

9,469 training and 3,925 test images (those of its folder `val`), from fast.ai's archive, or from a mirror with it.
There are three sizes of the photographs, of which the smallest is a download of 99 MB.

Source: J. Howard, github.com/fastai/imagenette, version 2. Mean and standard deviation are those of ImageNet.
"""

from __future__ import annotations

from typing import Literal

from refine.core.errors import UserError
from refine.download import imagenet
from refine.download.archives import listed, photos
from refine.download.fetch import Remote
from refine.download.source import Source, Splits

_URL = "https://s3.amazonaws.com/fast-ai-imageclas/"
ARCHIVES = {
    "full": Remote(
        name="imagenette2.tgz",
        url=f"{_URL}imagenette2.tgz",
        size=1_556_914_727,
        md5="fe2fc210e6bb7c5664d602c3cd71e612",
        sha256="de32de18a7d8df0114d5e2c3c14cafb9558e8f00441a73aa7953681ad02be49c",
    ),
    "320px": Remote(
        name="imagenette2-320.tgz",
        url=f"{_URL}imagenette2-320.tgz",
        size=341_553_947,
        md5="3df6f0d01a2c9592104656642f5e78a3",
        sha256="5020a9130cea0348272823cb12d2db7e981c6f2afa3dce71ccd5b8013005c55e",
    ),
    "160px": Remote(
        name="imagenette2-160.tgz",
        url=f"{_URL}imagenette2-160.tgz",
        size=98_948_031,
        md5="e793b78cc4c9e9a4ccc0c1155377a412",
        sha256="88daccb09b6fce93f45e6c09ddeb269cce705549e6bff322092a2a5a11489863",
    ),
}


class Params(imagenet.LikeImageNet):
    """Attributes:
    photos: the archive: `full`, or with the shorter side of all photographs reduced to `320px` or `160px`.
    """

    photos: Literal["full", "320px", "160px"] = "320px"


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are in the order of the archive.

    Raises:
        UserError: the archive can neither be found nor downloaded, or is not the published one.
    """
    archive = source.fetch(ARCHIVES[params.photos])
    numbers = {wnid: label for label, wnid in enumerate(imagenet.TEN)}
    labels: dict[str, dict[str, int]] = {"train": {}, "val": {}}
    for name in listed(archive):
        _, split, wnid, *rest = [*name.split("/"), "", ""]
        if split in labels and wnid in numbers and rest[0].endswith(".JPEG"):
            labels[split][name] = numbers[wnid]
    if not all(labels.values()):
        raise UserError(f"{archive} holds no images in train/WNID and val/WNID; download it again")
    return Splits(
        classes=list(imagenet.TEN.values()),
        side=params.side,
        train=photos(archive, labels["train"], params),
        test=photos(archive, labels["val"], params),
        sizes=(len(labels["train"]), len(labels["val"])),
        mean=imagenet.MEAN,
        std=imagenet.STD,
    )
