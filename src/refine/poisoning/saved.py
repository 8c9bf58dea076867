"""A saved attack: `attack.json` and `tensors.safetensors`, from which exactly the same trigger can be applied again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from refine.core.bounds import MOST_CLASSES, Side
from refine.core.documents import read_document, validated
from refine.core.files import write_json
from refine.core.machine import DEFAULTS, Machine
from refine.core.registry import ATTACKS, component
from refine.core.strict import Strict
from refine.poisoning.attack import AnyAttack, Chosen, Setting
from refine.shards.reading.tensors import load_tensors, save_tensors

_REMEDY = "run `dvc repro poison-dataset`"


class SavedAttack(Strict):
    """Content of `attack.json`.

    Attributes:
        attack: name of the attack, a module in `refine.attacks`.
        settings: all settings, including defaults.
        seed: of its random draws.
        num_classes: of the data set; 0 where its images have no labels and it names no classes.
        side: of the images, in pixels.
        poisoned: indices of the poisoned training images, ascending.
        cover: likewise, of the cover images.
        rate_of_dataset: poisoned fraction of the training set.
        rate_of_classes: poisoned fraction of the images of those classes that poisoned images come from; absent if
            there are none.
        tensors_sha256: of `tensors.safetensors`.
    """

    attack: str
    settings: dict[str, Any]
    seed: int
    num_classes: Annotated[int, Field(ge=0, le=MOST_CLASSES)]
    side: Side
    poisoned: list[int]
    cover: list[int]
    rate_of_dataset: float
    rate_of_classes: float | None = None
    tensors_sha256: str


def save(folder: Path, name: str, attack: AnyAttack, chosen: Chosen, seed: int, labels: Tensor) -> SavedAttack:
    """Saves an attack.

    Args:
        folder: an existing, empty folder.
        name: of the attack.
        attack: with its tensors.
        chosen: the selected training images.
        seed: of its random draws.
        labels: int64 [N], original labels of the training set.
    """
    counts = labels.bincount(minlength=attack.setting.num_classes)
    touched = sum(int(counts[label]) for label in set(labels[chosen.poisoned].tolist()))
    saved = SavedAttack(
        attack=name,
        settings=attack.params.model_dump(),
        seed=seed,
        num_classes=attack.setting.num_classes,
        side=attack.setting.side,
        poisoned=chosen.poisoned.sort().values.tolist(),
        cover=chosen.cover.sort().values.tolist(),
        rate_of_dataset=round(len(chosen.poisoned) / len(labels), 6),
        rate_of_classes=round(len(chosen.poisoned) / touched, 6) if touched else None,
        tensors_sha256=save_tensors(folder / "tensors.safetensors", attack.tensors),
    )
    write_json(folder / "attack.json", saved.model_dump(exclude_none=True))
    return saved


def load(folder: Path, machine: Machine = DEFAULTS) -> AnyAttack:
    """Loads a saved attack, ready to be applied again, on the device of this machine if it uses one.

    Raises:
        UserError: the folder is missing or damaged.
    """
    path = folder / "attack.json"
    saved = read_document(path, SavedAttack, _REMEDY)
    module = component(ATTACKS, saved.attack, f"{path}: attack")
    params = validated(path, saved.settings, module.Params, _REMEDY)
    setting = Setting(saved.num_classes, saved.side, name=saved.attack, machine=machine)
    attack: AnyAttack = module.Attack(params, setting)
    attack.tensors = load_tensors(folder / "tensors.safetensors", saved.tensors_sha256, _REMEDY)
    return attack
