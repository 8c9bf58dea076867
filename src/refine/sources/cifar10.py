"""`cifar10`: the 60,000 images of CIFAR-10 with the official split, 32x32 RGB, ten classes."""

from __future__ import annotations

from refine.core.params import Section
from refine.download import cifar
from refine.download.source import Source, Splits


class Params(Section):
    """CIFAR-10 has no settings."""


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are in the order of the batch files.

    Raises:
        UserError: the files can neither be found nor downloaded, or are not the published ones.
    """
    del params
    files = cifar.read(source)
    return cifar.splits(cifar.samples(files, cifar.TRAIN), cifar.samples(files, cifar.TEST), (50_000, 10_000))
