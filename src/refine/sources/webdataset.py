"""`webdataset`: shards that are there already, your own or a stranger's, on this disk or in a bucket.

The shards have the usual form: `KEY.jpg` (or another format of `shards/format/foreign.py`) and `KEY.cls`, its label as
text; `KEY.json` is kept. They stay where they are. What is written here is an index: their addresses, their SHA-256,
and all labels. Images are decoded when they are asked for, and made square as the settings say.

Addresses are paths, or URLs with http, https, s3, gs or az, and may hold braces: `s3://bucket/train-{000..146}.tar`. A
path is relative to the project. DVC does not notice when shards change; they are compared with their sums whenever they
are read.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Annotated

from braceexpand import braceexpand
from pydantic import Field, TypeAdapter

from refine.core.bounds import MOST_CLASSES, MOST_SHARDS, Mean, Std
from refine.core.errors import UserError
from refine.core.files import inside
from refine.core.outside import first_line
from refine.download.fitting import Fit, Fitted, FittedSide
from refine.download.own_images import lines
from refine.download.source import Elsewhere, Source
from refine.shards.format.manifest import Name
from refine.shards.format.network import Address

_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)
_RANGE = re.compile(r"\{(-?[0-9]{1,9})\.\.(-?[0-9]{1,9})(?:\.\.-?[0-9]+)?\}")
Addresses = Address | Annotated[list[Address], Field(min_length=1, max_length=MOST_SHARDS)]


class Params(Fitted):
    """Attributes:
    train: addresses of the shards to train on: one, with braces or without, or a list.
    test: likewise, of those to test on.
    labeled: whether the samples have labels.
    classes: their names, in the order of the labels: a list, or a text file inside `data/own/images` with one name in
        each line. By default, the labels are the names.
    mean: of each channel, for pixels in [0, 1]; classifiers normalize by it.
    std: likewise.
    """

    train: Addresses
    test: Addresses
    side: FittedSide = 224
    fit: Fit = "crop"
    labeled: bool = True
    classes: str | Annotated[list[Name], Field(min_length=2, max_length=MOST_CLASSES)] | None = None
    mean: Mean = Field(default=[0.485, 0.456, 0.406])
    std: Std = Field(default=[0.229, 0.224, 0.225])


def open_source(params: Params, source: Source) -> Elsewhere:
    """Lists the shards.

    Raises:
        UserError: an address cannot be understood, or one is listed twice.
    """
    train, test = _listed(params.train, "train"), _listed(params.test, "test")
    twice = [address for address, count in Counter([*train, *test]).items() if count > 1]
    if twice:
        raise UserError(f"sources.webdataset lists {twice[0]} twice; leave one out")
    names = params.classes
    if isinstance(names, str):
        names = lines(inside(source.own_images, names), "write one name in each line")
    if names is None and not params.labeled:
        names = []
    return Elsewhere(
        classes=names,
        train=train,
        test=test,
        preparation=params.preparation,
        mean=(params.mean[0], params.mean[1], params.mean[2]),
        std=(params.std[0], params.std[1], params.std[2]),
        labeled=params.labeled,
    )


def _listed(addresses: str | list[str], split: str) -> list[str]:
    where = f"sources.webdataset.{split}"
    found: list[str] = []
    for address in [addresses] if isinstance(addresses, str) else addresses:
        many = math.prod(abs(int(last) - int(first)) + 1 for first, last in _RANGE.findall(address))
        if len(found) + many > MOST_SHARDS:
            raise UserError(f"{where} names more than {MOST_SHARDS:,} shards; make them larger")
        try:
            found += [_ADDRESS.validate_python(one) for one in braceexpand(address)]
        except ValueError as error:
            raise UserError(f"{where}: {address} cannot be understood ({first_line(error)})") from None
    return found
