"""`cifar100`: the 60,000 images of CIFAR-100 with the official split, 32x32 RGB, a hundred classes.

50,000 training and 10,000 test images, from the authors' "python version" over HTTPS, or from a mirror with
`cifar-100-python.tar.gz`. Its pickles are read by an unpickler that only accepts NumPy arrays and plain containers.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Mean and standard deviation of the
training images as in weiaicunzai/pytorch-cifar100, rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from refine.core.params import Section
from refine.download import cifar
from refine.download.archives import contents
from refine.download.fetch import Remote
from refine.download.source import Source, Splits
from refine.shards.writer import Sample

FOLDER = "cifar-100-python"
ARCHIVE = Remote(
    name="cifar-100-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    size=169_001_437,
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)


class Params(Section):
    """CIFAR-100 has no settings."""


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are in the order of the files.

    Raises:
        UserError: the archive can neither be found nor downloaded, or is not the published one.
    """
    del params
    archive = source.fetch(ARCHIVE)
    meta = cifar.unpickled(contents(archive, {f"{FOLDER}/meta"})[f"{FOLDER}/meta"])
    return Splits(
        classes=[str(name).replace("_", " ") for name in meta["fine_label_names"]],
        side=cifar.SIDE,
        train=_samples(archive, "train"),
        test=_samples(archive, "test"),
        sizes=(50_000, 10_000),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    )


def _samples(archive: Path, split: str) -> Iterator[Sample]:
    name = f"{FOLDER}/{split}"
    yield from cifar.samples_of(cifar.unpickled(contents(archive, {name})[name]), "fine_labels")
