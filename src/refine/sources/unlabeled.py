"""`unlabeled`: the user's own photos without labels, anywhere below `data/own/images`.

Nothing needs to be sorted: there are no class folders and no test split. A share of the photos is held out as test
images, on which a defended model can be compared with the model. The shards hold no labels, and their manifests say so.
Where a few photos are labeled, they are the test images instead, so that accuracy is measured on them.

Images may have the formats of `shards/format/foreign.py` with 8 bits per channel. EXIF orientation is applied, and
transparent pixels are laid on white. Hidden files (`.name`) are ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from refine.core.bounds import MOST_CLASSES
from refine.core.errors import UserError
from refine.core.files import inside, sha256_of
from refine.core.params import Seed, Share
from refine.download.fitting import Fit, Fitted, FittedSide
from refine.download.own_images import below, entries, lines, samples
from refine.download.source import Source, Splits
from refine.shards.format.manifest import Name
from refine.shards.format.preparation import read
from refine.shards.writer import Sample

log = logging.getLogger(__name__)

_SHOWN = 3


class Params(Fitted):
    """Attributes:
    path: folder with the images, inside `data/own/images`; its subfolders count, too.
    held_out: share of the photos that is held out as test images. Copies of a photo stay together.
    check: folder inside `data/own/images` with a folder of photos for each class, which are the test images then; none
        of them is trained on, and no other photo is held out.
    seed: of the draw.
    classes: names of the model's classes, in the order of its logits: a list, or a text file inside `data/own/images`
        with one name in each line. By default, the data set names none, or those of the folders in `check`, sorted.
    unreadable: what to do with a file that is no image, or a damaged one: `refuse` stops, `skip` tells how many there
        are and goes on.
    """

    side: FittedSide = 224
    fit: Fit = "crop"
    path: str = "data/own/images"
    held_out: Annotated[Share, Field(gt=0, lt=1)] = 0.2
    check: str | None = None
    seed: Seed = 0
    classes: str | Annotated[list[Name], Field(max_length=MOST_CLASSES)] | None = None
    unreadable: Literal["refuse", "skip"] = "refuse"

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.check is not None and "held_out" in self.model_fields_set:
            raise ValueError("held_out is of no use beside check, whose photos are the test images; remove one of them")
        return self


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are sorted by their paths.

    Raises:
        UserError: the path is outside `data/own/images`, there are too few images, or a file is no image.
    """
    root = inside(source.own_images, params.path)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; put your images there")
    names = inside(source.own_images, params.classes) if isinstance(params.classes, str) else None
    classes = _classes(params, names)
    files = [path for path in below(root) if names is None or not path.samefile(names)]
    if params.check is not None:
        return _checked(params, root, inside(source.own_images, params.check), files, classes)
    held_out = _held_out(files, params)
    sizes = int((~held_out).sum()), int(held_out.sum())
    if not all(sizes):
        raise UserError(
            f"{root} holds {len(files)} files, of which sources.unlabeled.held_out {params.held_out} "
            f"holds out {sizes[1]}; add images, or change it"
        )
    return Splits(
        classes=classes,
        side=params.side,
        train=_samples(root, files, np.flatnonzero(~held_out).tolist(), params),
        test=_samples(root, files, np.flatnonzero(held_out).tolist(), params),
        sizes=sizes,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        labeled=False,
    )


def _checked(params: Params, root: Path, check: Path, files: list[Path], classes: list[str]) -> Splits:
    """Labeled photos as test images, and all others to train on."""
    folders = [path for path in entries(check) if path.is_dir()] if check.is_dir() else []
    names = classes or [folder.name for folder in folders]
    unknown = {folder.name for folder in folders} - set(names)
    if not folders or unknown or len(names) < 2:
        found = f"has {min(unknown)}, which is no class" if unknown else f"has {len(folders)} folders of classes"
        raise UserError(f"{check} {found}; put labeled photos into a folder for each class, named like the class")
    labeled = [(path, names.index(folder.name)) for folder in folders for path in below(folder)]
    known = {_content(path) for path, _ in labeled}
    others = [path for path in files if not path.is_relative_to(check)]
    train = [path for path in others if _content(path) not in known]
    if len(train) < len(others):
        log.warning("%d photos in %s are in %s, too, and are not trained on", len(others) - len(train), root, check)
    if not train or not labeled:
        raise UserError(f"{root if labeled else check} holds no photos; add some")
    return Splits(
        classes=names,
        side=params.side,
        train=_samples(root, train, range(len(train)), params),
        test=samples(root, labeled, params),
        sizes=(len(train), len(labeled)),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        labeled=False,
        test_labeled=True,
    )


def _classes(params: Params, names: Path | None) -> list[str]:
    found = lines(names, "write one name in each line") if names else list(params.classes or ())
    if len(set(found)) < len(found) or len(found) == 1:
        problem = "twice the same class" if len(found) > 1 else "only one class"
        raise UserError(f"sources.unlabeled.classes names {problem}; name every class of the model once")
    return found


def _held_out(files: Sequence[Path], params: Params) -> np.ndarray:
    """Mask of the files that are held out, bool [N]; of files with the same content, all or none."""
    groups: dict[str, list[int]] = {}
    for row, path in enumerate(files):
        groups.setdefault(_content(path), []).append(row)
    contents = list(groups.values())
    held_out = np.zeros(len(files), dtype=bool)
    wanted = round(params.held_out * len(files))
    for number in np.random.RandomState(params.seed).permutation(len(contents)).tolist():
        if held_out.sum() + len(contents[number]) <= wanted:
            held_out[contents[number]] = True
    return held_out


def _content(path: Path) -> str:
    """A sum of the content, or the name of a file that cannot be read, which is then refused when its turn comes."""
    try:
        return sha256_of(path)
    except OSError:
        return str(path)


def _samples(root: Path, files: Sequence[Path], rows: Sequence[int], params: Params) -> Iterator[Sample]:
    """Reads these files.

    Raises:
        UserError: one cannot be read, and `unreadable` is `refuse`; or none can.
    """
    key, skipped = 0, []
    for row in rows:
        name = str(files[row].relative_to(root))
        try:
            image = read(files[row], params.preparation)
        except UserError as error:
            if params.unreadable == "refuse":
                raise UserError(f"{error}, or set sources.unlabeled.unreadable to skip") from None
            skipped.append(name)
            continue
        yield Sample(key, image, 0, {"source_index": row, "file": name})
        key += 1
    if skipped:
        shown = ", ".join(skipped[:_SHOWN]) + (", ..." if len(skipped) > _SHOWN else "")
        log.warning("%d of %d files in %s are no images that can be read: %s", len(skipped), len(rows), root, shown)
    if not key:
        raise UserError(f"none of the {len(rows)} files chosen from {root} is an image that can be read; add images")
