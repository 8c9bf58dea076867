"""Settings of the clean-label attacks. Nothing here imports torch, as in `poisoning.attack`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from refine.backdoor.params import BackdoorRecipe, Network
from refine.core.bounds import AttackSteps
from refine.core.params import Number, PositiveNumber, Section
from refine.poisoning.overlay import PatchParams
from refine.training.recipe import paper_by_name

Step = Annotated[PositiveNumber, Field(le=255)]


class Perturbation(Section):
    """Projected gradient ascent on the cross-entropy, within a box around each image.

    Attributes:
        epsilon: e, largest change of a channel, in levels of 255.
        step: how far each step goes along the sign of the gradient, in levels.
        steps: number of steps; 0 leaves the images as they are.
        random_start: start from a random point within epsilon of the image and not from the image itself.
    """

    epsilon: Annotated[Number, Field(ge=0, le=255)] = 8.0
    step: Step
    steps: AttackSteps
    random_start: bool


class SourceRecipe(BackdoorRecipe):
    """That of the attacked classifier, in another place."""

    place: ClassVar[str] = "attacks.*.source.recipe"

    def within(self, section: str) -> SourceRecipe:
        """The same recipe, whose messages name its place among the settings of one attack."""

        class Placed(SourceRecipe):
            place: ClassVar[str] = f"{section}.source.recipe"

        return Placed.model_construct(**dict(self))


class SourceModel(Section):
    """The benign classifier that d misleads.

    Attributes:
        folder: folder of a trained classifier in `data/own/attack`, such as a copy of `models/backdoor` made with the
            attack `none`; left out, one is trained in this stage on the clean training images.
        network: its architecture.
        recipe: how it is trained; the default is the REFINE paper's recipe for the attacked classifier.
        robust_steps: steps of `perturbation` against each batch that it is trained on; 0, as in the papers, trains on
            clean images. The authors of the attack recommend a robust classifier, whose weak spots look like other
            classes.
    """

    folder: str | None = None
    network: Network = Network(name="resnet18")
    recipe: Annotated[SourceRecipe, BeforeValidator(paper_by_name)] = SourceRecipe()
    robust_steps: AttackSteps = 0


class CleanLabelParams(PatchParams):
    """Attributes:
    rate: poisoned share of the target class.
    patch_side: height and width of a patch in pixels; left out, that of the attack which the pattern is taken from.
    pattern: what a patch shows, `texture` as in `badnets` or `grid` as in `badnets_grid`.
    corners: 1 draws a patch in the bottom right corner, 4 draws its mirror images in the other corners too.
    perturbation: d.
    source: the benign classifier.
    start_from_source: train the attacked classifier from the benign one's weights and not afresh, as the released
        REFINE code does; `train_backdoor.network` has to be the same network.
    """

    pattern: Literal["texture", "grid"]
    corners: Literal[1, 4]
    perturbation: Perturbation
    source: SourceModel = SourceModel()
    start_from_source: bool = False
