"""Loads any kind of defense from its folder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.registry import DEFENSES, component, names
from refine.defending.protocol.defense import Defense
from refine.models.card import NAME, REMEDY


class _Kind(BaseModel):
    kind: Annotated[str, Field(max_length=200)]


def load(folder: Path, classifier_folder: Path, epoch: int | None = None) -> Defense:
    """A defended classifier in eval mode.

    Args:
        folder: of the defense.
        classifier_folder: of the classifier that it was made for.
        epoch: takes the state after this epoch of its training instead of the final one.

    Raises:
        UserError: a folder is damaged or holds something else, or the defense belongs to another classifier.
    """
    module = _module(folder)
    more = {} if epoch is None else {"epoch": epoch}
    return cast(Defense, module.load(folder, classifier_folder, **more))


def snapshots(folder: Path) -> list[int]:
    """Epochs after which a state of the training was kept, ascending, the last one being the final state.

    Raises:
        UserError: the folder is damaged or holds no defense.
    """
    kept: Any = getattr(_module(folder), "snapshots", None)
    return list(kept(folder)) if kept else []


def parts(folder: Path, classifier_folder: Path) -> dict[str, Defense]:
    """What inside a defense answers images by itself, by its name, in eval mode.

    Raises:
        UserError: as in `load`.
    """
    own: Any = getattr(_module(folder), "parts", None)
    return dict(own(folder, classifier_folder)) if own else {}


def _module(folder: Path) -> ModuleType:
    kind = read_document(folder / NAME, _Kind, REMEDY).kind
    if kind not in names(DEFENSES):
        raise UserError(f"{folder} holds {kind!r}, which is no defense; known are {', '.join(names(DEFENSES))}")
    return component(DEFENSES, kind, f"{folder / NAME}: kind")
