"""Somebody's classifier in the place of one that is trained here."""

from __future__ import annotations

import shutil
from pathlib import Path

from refine.backdoor.params import TrainBackdoorParams
from refine.core.errors import UserError
from refine.core.files import inside, new_folder
from refine.models import classifier as classifiers
from refine.models.card import NAME, WEIGHTS
from refine.shards.format.manifest import Manifest
from refine.training.loop import write_history

OWN_MODELS = Path("data/own/model")


def take(params: TrainBackdoorParams, manifest: Manifest, own_models: Path, folder: Path) -> None:
    """Copies the folder of a classifier, after a look at it; its training history stays empty.

    Args:
        params: of the stage, with a place to import from.
        manifest: of the images that it is for.
        own_models: where the user's models lie.
        folder: to write.

    Raises:
        UserError: the folder is elsewhere, damaged, or not for these images, or the network is not the one that the
            parameters name.
    """
    place = inside(own_models, str(params.imported))
    _, card = classifiers.load(place)
    told, found = params.network.model_dump(), card.architecture.model_dump()
    if told != found:
        raise UserError(f"{place} holds {found}, and train_backdoor.network is {told}; write the first one there")
    if card.input_side != manifest.side:
        raise UserError(
            f"{place} takes images of {card.input_side} pixels, the data set has {manifest.side}; "
            f"set the side of the data source to {card.input_side}"
        )
    if manifest.classes and len(manifest.classes) != len(card.classes):
        raise UserError(
            f"{place} knows {len(card.classes)} classes, the data set has {len(manifest.classes)}; give images of all "
            "its classes, or name them all in the settings of the data source (classes)"
        )
    with new_folder(folder) as part:
        for name in (NAME, WEIGHTS):
            shutil.copyfile(place / name, part / name)
        write_history(part / "history.csv", [])
