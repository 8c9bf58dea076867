"""Every number in a parameters file has an upper bound, and a file that is made under it has the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from refine.backdoor.params import BackdoorRecipe, TrainBackdoorParams
from refine.core.registry import ARCHITECTURES, ATTACKS, DEFENSES, SOURCES, SPLITS, component, names
from refine.defending.params import STAGE_OF_ITS_OWN, DefenseDataParams
from refine.defenses.refine.card import RefineCard, Snapshot
from refine.defenses.refine.training.params import RefineRecipe, TrainRefineParams
from refine.download.params import DownloadParams
from refine.evaluation.params import EvaluateParams
from refine.models.architecture import Architecture
from refine.models.classifier import ClassifierCard
from refine.poisoning.params import PoisonDatasetParams
from refine.poisoning.saved import SavedAttack
from refine.proof.judging.params import SIGNS, SignsParams
from refine.shards.format.manifest import Description
from refine.sources.folder import Params as FolderParams

Schema = dict[str, Any]
UPPER = {"maximum", "exclusiveMaximum", "le", "lt"}
"""The latter two where pydantic checks after a validator of ours."""
SECTIONS: dict[str, type[BaseModel]] = {
    "download": DownloadParams,
    "poison_dataset": PoisonDatasetParams,
    "train_backdoor": TrainBackdoorParams,
    "train_refine": TrainRefineParams,
    "evaluate": EvaluateParams,
    "defense_data": DefenseDataParams,
    **{f"network {name}": component(ARCHITECTURES, name, "").Params for name in names(ARCHITECTURES)},
    "signs": SignsParams,
    **{f"signs.{name}": component(SIGNS, name, "").Params for name in names(SIGNS)},
    **{f"sources.{name}": component(SOURCES, name, "").Params for name in names(SOURCES)},
    **{f"attacks.{name}": component(ATTACKS, name, "").Params for name in names(ATTACKS)},
    **{f"split_settings.{name}": component(SPLITS, name, "").Params for name in names(SPLITS)},
    **{
        f"defense_settings.{name}": component(DEFENSES, name, "").Params
        for name in names(DEFENSES)
        if name != STAGE_OF_ITS_OWN
    },
}


def _unbounded(schema: Any, place: str) -> Iterator[str]:
    """Places of numbers and lists without an upper bound."""
    if isinstance(schema, list):
        for part in schema:
            yield from _unbounded(part, place)
    if isinstance(schema, dict):
        kind = schema.get("type")
        chosen_from = "enum" in schema or "const" in schema
        if kind in ("integer", "number") and not chosen_from and not UPPER & set(schema):
            yield place
        if kind == "array" and "maxItems" not in schema:
            yield place
        for name, part in schema.items():
            if name not in ("default", "enum"):
                yield from _unbounded(part, f"{place}.{name}")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_number_and_every_list_has_an_upper_bound(section: str) -> None:
    assert list(_unbounded(SECTIONS[section].model_json_schema(), section)) == []


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (BackdoorRecipe, {"epochs": 2**62}),
        (BackdoorRecipe, {"epochs": 1_000_000}),
        (BackdoorRecipe, {"augment": {"shift": 10**59}}),
        (BackdoorRecipe, {"batch_size": 10**9}),
        (BackdoorRecipe, {"optimizer": {"lr": 1e300}}),
        (TrainRefineParams, {"seed": 1, "recipe": "paper", "snapshots": 10**30}),
        (TrainRefineParams, {"seed": 1, "recipe": "paper", "transform": {"name": "unet", "first_channels": 1026}}),
        (Architecture, {"name": "resnet18", "width": 2048}),
    ],
)
def test_numbers_that_would_end_later_are_refused_at_once(model: type[BaseModel], wrong: Schema) -> None:
    with pytest.raises(ValidationError, match=r"less than or equal to"):
        model.model_validate(wrong)


def _bounds(model: type[BaseModel], field: str) -> Schema:
    schema = model.model_json_schema()["properties"][field]
    return {name: schema[name] for name in sorted(schema) if name not in ("title", "default")}


@pytest.mark.parametrize(
    ("parameter", "of_a_file"),
    [
        ((DownloadParams, "samples_per_shard"), (Description, "samples_per_shard")),
        ((RefineRecipe, "epochs"), (Snapshot, "epoch")),
    ],
)
def test_a_parameter_accepts_what_the_file_accepts_that_it_is_written_to(
    parameter: tuple[type[BaseModel], str], of_a_file: tuple[type[BaseModel], str]
) -> None:
    assert _bounds(*parameter) == _bounds(*of_a_file) != {}


def test_a_card_has_room_for_all_snapshots() -> None:
    most = _bounds(TrainRefineParams, "snapshots")["maximum"]
    assert _bounds(RefineCard, "snapshots")["maxItems"] == most
    last = _bounds(RefineRecipe, "epochs")["maximum"]
    Snapshot(epoch=last, file=f"snapshots/epoch-{last:04d}.safetensors", sha256="0" * 64)


def test_a_name_of_a_checkpoint_has_room_for_all_epochs() -> None:
    last = _bounds(RefineRecipe, "epochs")["maximum"]
    assert f"epoch-{last:06d}" > f"epoch-{last - 1:06d}"
    assert len(f"{last:06d}") == 6


def test_images_of_every_side_that_can_be_asked_for_fit_all_files() -> None:
    largest = _bounds(FolderParams, "side")["maximum"]
    for model, field in ((Description, "side"), (ClassifierCard, "input_side"), (SavedAttack, "side")):
        assert _bounds(model, field)["maximum"] == largest
