"""Settings of the clean-label attacks. Nothing here imports torch, see `poisoning.attack`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from refine.backdoor.params import BackdoorRecipe
from refine.core.bounds import AttackSteps
from refine.core.params import Number, PositiveNumber, Section
from refine.models.architecture import Architecture, named
from refine.poisoning.memory import LearnsFrom
from refine.poisoning.overlay import PatchParams
from refine.training.recipe import paper_by_name

Step = Annotated[PositiveNumber, Field(le=255)]


class Perturbation(Section):
    """Projected gradient ascent on the cross-entropy, in a box around each image.

    Attributes:
        epsilon: e, largest change of a value, in levels of 255.
        step: size of a step along the sign of the gradient, in levels.
        steps: number of steps; 0 leaves the images unchanged.
        random_start: start from a random point within epsilon of the image instead of the image itself.
    """

    epsilon: Annotated[Number, Field(ge=0, le=255)] = 8.0
    step: Step
    steps: AttackSteps
    random_start: bool


class SourceRecipe(BackdoorRecipe):
    """The recipe of the attacked classifier, in another section of the parameters."""

    place: ClassVar[str] = "attacks.*.source.recipe"

    def within(self, section: str) -> SourceRecipe:
        """The same recipe, with error messages that name the section of one attack."""

        class Placed(SourceRecipe):
            place: ClassVar[str] = f"{section}.source.recipe"

        return Placed.model_construct(**dict(self))


class SourceModel(Section):
    """The benign classifier that d is computed against.

    Attributes:
        folder: folder of a trained classifier in `data/own/attack`, such as a copy of `models/backdoor` trained with
            the attack `none`; by default one is trained in this stage, on the clean training images.
        network: its architecture.
        recipe: of its training; by default the REFINE paper's recipe for the attacked classifier.
        robust_steps: steps of `perturbation` for adversarial training; 0, as in the papers, trains on clean images.
            The authors of label_consistent recommend a robust classifier, as perturbations against it resemble
            other classes.
        learns_from: how many training images it is trained on, drawn at random; by default all. They are in memory.
            `low_frequency` seeks its pattern on the same ones.
    """

    folder: str | None = None
    network: SerializeAsAny[Architecture] = Field(default_factory=lambda: named("resnet18"))
    recipe: Annotated[SourceRecipe, BeforeValidator(paper_by_name)] = SourceRecipe()
    robust_steps: AttackSteps = 0
    learns_from: LearnsFrom = None


class CleanLabelParams(PatchParams):
    """Attributes:
    rate: poisoned fraction of the target class.
    patch_side: height and width of a patch in pixels; by default that of the attack with the same pattern.
    pattern: content of the patch, `texture` as in `badnets` or `grid` as in `badnets_grid`.
    corners: 1 for a patch in the bottom right corner, 4 for mirrored patches in the other corners as well.
    perturbation: d.
    source: the benign classifier.
    start_from_source: train the attacked classifier from the weights of the benign one instead of a random
        initialization, as the released REFINE code does; `train_backdoor.network` has to be the same network.
    """

    pattern: Literal["texture", "grid"]
    corners: Literal[1, 4]
    perturbation: Perturbation
    source: SourceModel = SourceModel()
    start_from_source: bool = False
