"""An attack's folder: `attack.json` and `tensors.safetensors`, enough to apply the attack again exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from refine.core.bounds import MOST_CLASSES, Side
from refine.core.documents import read_document, validated
from refine.core.files import write_json
from refine.core.machine import DEFAULTS, Machine
from refine.core.registry import ATTACKS, component
from refine.poisoning.attack import AnyAttack, Chosen, Setting
from refine.shards.reading.tensors import load_tensors, save_tensors

_REMEDY = "run `dvc repro poison-dataset`"


class SavedAttack(BaseModel):
    """Content of `attack.json`.

    Attributes:
        attack: its name, a file of `refine.attacks`.
        settings: effective ones, published values included.
        seed: of its random choices.
        num_classes: of the data set.
        side: of the images, in pixels.
        poisoned: rows of the training set, ascending.
        cover: likewise.
        rate_of_dataset: poisoned share of the training set.
        rate_of_classes: poisoned share of the classes that poisoned images come from; absent without any.
        tensors_sha256: of `tensors.safetensors`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    attack: str
    settings: dict[str, Any]
    seed: int
    num_classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)]
    side: Side
    poisoned: list[int]
    cover: list[int]
    rate_of_dataset: float
    rate_of_classes: float | None = None
    tensors_sha256: str


def save(folder: Path, name: str, attack: AnyAttack, chosen: Chosen, seed: int, labels: Tensor) -> SavedAttack:
    """Writes the attack into a folder, which exists and is empty.

    Args:
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
    """The attack, ready to be applied again, on the device of this machine where it takes one.

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
