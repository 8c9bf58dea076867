"""What an attack does while the classifier is trained, as a file that the attack writes and the training reads.

It is kept in a folder apart from the test trigger, so that a change of that trigger alone does not cause a new
training, and training needs no code of the attack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from refine.core.documents import read_document
from refine.core.files import write_json
from refine.core.strict import Strict

NAME = "training.json"
WEIGHTS = "initial.safetensors"

Share = Annotated[float, Field(ge=0, le=1)]


class Distortion(Strict):
    """A random geometric and brightness change, drawn for each image; nearest neighbor, black outside the image.

    Attributes:
        degrees: largest rotation in either direction.
        translate: largest shift in either direction, as a fraction of the side.
        scale: smallest and largest scaling factor.
        flip: probability of a horizontal flip.
        brightness: largest relative change of brightness.
    """

    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    translate: Share = 0.0
    scale: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)] = Field(default=[1.0, 1.0])
    flip: Share = 0.0
    brightness: Share = 0.0


class AttackerAugmentation(Strict):
    """How the attacker changes training images before the augmentation of the recipe.

    Attributes:
        poisoned: distortion of poisoned images; None leaves them unchanged.
        benign: distortion of all other images, including cover images.
        initial_weights_sha256: of `initial.safetensors` beside it, the weights that training starts from; None for a
            random initialization.
        twins_sha256: of `twins.safetensors` beside it, which replace flipped poisoned images (`backdoor.twins`); None
            flips them like all others.
    """

    poisoned: Distortion | None = None
    benign: Distortion | None = None
    initial_weights_sha256: str | None = None
    twins_sha256: str | None = None


def write(folder: Path, attacker_augmentation: AttackerAugmentation) -> None:
    """Writes it into a folder."""
    write_json(folder / NAME, attacker_augmentation.model_dump())


def read(folder: Path) -> AttackerAugmentation:
    """Reads it from a folder.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_document(folder / NAME, AttackerAugmentation, "run `dvc repro poison-dataset`")
