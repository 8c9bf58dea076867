"""BTI-DBF(U) (Xu et al., ICLR 2024): the classifier unlearns what an inverted trigger does.

In each round, a generator B is inverted that adds what may be a trigger (`defending.decoupling.inversion`), and then
the whole classifier is fine-tuned with

    CE(F(x'), y) + mean (g(x') - g(x))²,

where x' are the images, a tenth of which B has changed, all with their true labels, and g is the last map; that of the
unchanged images counts as given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from refine.core.bounds import Epochs
from refine.defending import repaired
from refine.defending.decoupling.params import (
    DecouplingParams,
    DecouplingRecipe,
    GeneratorRecipe,
    MaskRecipe,
    PretrainingRecipe,
)
from refine.defending.repaired import Repaired
from refine.training.recipe import Optimizer, paper_by_name

NAME = "bti_dbf_u"


class UnlearningRecipe(DecouplingRecipe):
    """Of the classifier, in each round."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"
    epochs: Epochs = 30
    optimizer: Optimizer = Optimizer(name="adamw", lr=1e-4, weight_decay=0.0)


class OwnPretraining(PretrainingRecipe):
    """The same."""

    place: ClassVar[str] = f"defense_settings.{NAME}.pretraining"


class OwnMask(MaskRecipe):
    """The same."""

    place: ClassVar[str] = f"defense_settings.{NAME}.mask"


class OwnGenerator(GeneratorRecipe):
    """The same."""

    place: ClassVar[str] = f"defense_settings.{NAME}.generator"


class Params(DecouplingParams):
    """Settings of the inversion (see `DecouplingParams`), and of the fine-tuning.

    Attributes:
        pretraining: of the generator.
        mask: how the mask is trained.
        generator: how the generator is trained.
        batch_statistics: normalize by the statistics of each batch, as the official code does, while fine-tuning.
        recipe: how the classifier is fine-tuned.
    """

    pretraining: OwnPretraining = OwnPretraining()
    mask: OwnMask = OwnMask()
    generator: OwnGenerator = OwnGenerator()
    batch_statistics: bool = True
    recipe: Annotated[UnlearningRecipe, BeforeValidator(paper_by_name)] = UnlearningRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "BTI-DBF(U)"
    regime = "labeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
