"""`flowers102`: photographs of 102 kinds of flowers.

2,040 training images (the authors' training and validation images, ten each of every class) and 6,149 test images,
from the authors' three files, or from a mirror with them.

Source: M.-E. Nilsback, A. Zisserman, "Automated Flower Classification over a Large Number of Classes", 2008. Names of
the classes are those of torchvision; mean and standard deviation are those of ImageNet.
"""

from __future__ import annotations

import numpy as np

from refine.core.errors import UserError
from refine.download import imagenet
from refine.download.archives import photos
from refine.download.fetch import Remote
from refine.download.source import Source, Splits

_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
ARCHIVE = Remote(
    name="102flowers.tgz",
    url=f"{_URL}102flowers.tgz",
    size=344_862_509,
    md5="52808999861908f626f3c1f4e79d11fa",
    sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
)
LABELS = Remote(
    name="imagelabels.mat",
    url=f"{_URL}imagelabels.mat",
    size=502,
    md5="e0620be6f572b9609742df49c70aed4d",
    sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
)
SPLITS = Remote(
    name="setid.mat",
    url=f"{_URL}setid.mat",
    size=14_989,
    md5="a5357ecc9cb78c4bef273ce3793fc85c",
    sha256="46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
)


class Params(imagenet.LikeImageNet):
    """How the photographs become squares is all that can be set."""


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are in the order of the archive.

    Raises:
        UserError: a file can neither be found nor downloaded, or is not the published one.
    """
    from scipy.io import loadmat
    from torchvision.datasets import Flowers102

    archive, paths = source.fetch(ARCHIVE), (source.fetch(LABELS), source.fetch(SPLITS))
    labels, numbers = (loadmat(path) for path in paths)
    of = np.ravel(labels.get("labels", ()))
    parts = [np.concatenate([np.ravel(numbers.get(name, ())) for name in part]) for part in _PARTS]
    if any(not len(part) or part.min() < 1 or part.max() > len(of) for part in parts):
        raise UserError(f"{paths[1]} and {paths[0]} do not belong together; download them again")
    train, test = ({f"jpg/image_{number:05d}.jpg": int(of[number - 1]) - 1 for number in part} for part in parts)
    return Splits(
        classes=list(Flowers102.classes),
        side=params.side,
        train=photos(archive, train, params),
        test=photos(archive, test, params),
        sizes=(len(train), len(test)),
        mean=imagenet.MEAN,
        std=imagenet.STD,
    )


_PARTS = (("trnid", "valid"), ("tstid",))
"""Names of the training and of the test images in `setid.mat`."""
