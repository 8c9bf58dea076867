"""The part of an attack that acts while the classifier is trained, as data: the attack writes it, training reads it.

It lies in a folder of its own, apart from the test trigger, so that a change of that trigger alone does not
train again; and training needs no code of the attack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from refine.core.documents import read_document
from refine.core.files import write_json

NAME = "training.json"
WEIGHTS = "initial.safetensors"

Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Distortion(_Part):
    """A random change of shape and light, one draw per image; nearest neighbor, black outside the image.

    Attributes:
        degrees: largest rotation to either side.
        translate: largest shift to either side, as a share of the side.
        scale: smallest and largest factor of size.
        flip: probability of a horizontal flip.
        brightness: largest relative change of brightness.
    """

    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    translate: Share = 0.0
    scale: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)] = Field(default=[1.0, 1.0])
    flip: Share = 0.0
    brightness: Share = 0.0


class AttackerAugmentation(_Part):
    """What happens to the attacker's training images before the recipe's own augmentation.

    Attributes:
        poisoned: distortion of poisoned images; None leaves them as they are.
        benign: distortion of the others, cover images included.
        initial_weights_sha256: of `initial.safetensors` beside it, the state that training starts from;
            None starts afresh.
        twins_sha256: of `twins.safetensors` beside it, taken in place of flips of poisoned images (`backdoor.twins`);
            None flips them like the others.
    """

    poisoned: Distortion | None = None
    benign: Distortion | None = None
    initial_weights_sha256: str | None = None
    twins_sha256: str | None = None


def write(folder: Path, attacker_augmentation: AttackerAugmentation) -> None:
    """Writes it into the folder."""
    write_json(folder / NAME, attacker_augmentation.model_dump())


def read(folder: Path) -> AttackerAugmentation:
    """Reads a folder's part.

    Raises:
        UserError: it is missing or damaged.
    """
    return read_document(folder / NAME, AttackerAugmentation, "run `dvc repro poison-dataset`")
