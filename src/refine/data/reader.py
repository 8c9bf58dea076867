"""Reading shards through webdataset, every sample once, and noticing when something is missing.

webdataset loses the rest of a cut tar without a word and unpickles fields by their ending; so shards are
verified against their manifest first, samples are counted, and only `cls`, `json` and `png` are decoded, here.
"""

from __future__ import annotations

import json
import os
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from refine.data.format import manifest
from refine.data.format.manifest import Manifest
from refine.data.format.png import decode
from refine.system.errors import UserError
from refine.system.machine import machine
from refine.system.progress import progress

os.environ.setdefault("WDS_SECURE", "1")
import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

Record = tuple[int, Tensor, int, dict[str, Any]]


class Shards(IterableDataset[Record]):
    """The samples of a verified folder: (key, uint8 [3, side, side], label, info), each once per pass.

    With several workers each takes whole shards; more workers than shards leaves some of them idle.

    Raises:
        UserError: the folder is damaged (at construction), or a shard changed since (while reading).
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = manifest.verify(folder)
        self._paths = {str(folder / shard.name): shard.samples for shard in self.manifest.shards}

    def __iter__(self) -> Iterator[Record]:
        if not self._paths:
            return
        pipeline = webdataset.DataPipeline(
            webdataset.SimpleShardList(list(self._paths)),
            webdataset.split_by_worker,
            _opened,
            partial(tar_file_expander, select_files=_is_ours),
            group_by_keys,
        )
        read: Counter[str] = Counter()
        try:
            for sample in pipeline:
                read[sample["__url__"]] += 1
                yield _decoded(sample)
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"a shard cannot be read any more ({error}); run `dvc checkout` to restore it") from None
        for path, count in read.items():
            if count != self._paths[path]:
                raise UserError(f"{path} gave {count} of {self._paths[path]} samples; run `dvc checkout` to restore it")


def _opened(shards: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Opens plain files only: webdataset's own opener also runs commands and follows rewriting rules."""
    for shard in shards:
        with Path(shard["url"]).open("rb") as stream:
            yield {**shard, "stream": stream}


def _is_ours(name: str) -> bool:
    return name.endswith((".cls", ".json", ".png"))


def _decoded(sample: dict[str, Any]) -> Record:
    try:
        image = torch.from_numpy(decode(sample["png"]).copy()).permute(2, 0, 1)
        return int(sample["__key__"]), image, int(sample["cls"]), json.loads(sample["json"])
    except (KeyError, ValueError, zlib.error, struct.error) as error:
        where = f"sample {sample['__key__']} of {sample['__url__']}"
        raise UserError(f"{where} cannot be decoded ({error!r}); write the shards again") from None


@dataclass(frozen=True)
class Split:
    """A folder of shards in memory, in the order of the keys.

    Attributes:
        images: uint8 [N, 3, side, side], RGB.
        labels: int64 [N].
        keys: int64 [N], ascending.
        infos: the JSON of each sample.
        manifest: of the folder.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    infos: list[dict[str, Any]]
    manifest: Manifest

    def flags(self, name: str) -> Tensor:
        """Whether the JSON says `name: true`, bool [N]."""
        return torch.tensor([info[name] is True for info in self.infos], dtype=torch.bool)


def read_split(folder: Path) -> Split:
    """Decodes a whole folder, once.

    Raises:
        UserError: the folder is damaged.
    """
    shards = Shards(folder)
    size, side = shards.manifest.samples, shards.manifest.side
    loader = DataLoader(shards, batch_size=None, num_workers=machine().workers)
    samples = progress(loader, f"read {folder}", size, "image")
    try:
        records = sorted(
            ((key, label, info, image) for key, image, label, info in samples), key=lambda record: record[0]
        )
    except UserError as error:  # from a worker process it comes with that process's traceback in front
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
    if len(records) != size:
        raise UserError(f"{folder} gave {len(records)} of {size} samples; run `dvc checkout` to restore it")
    images = torch.empty((size, 3, side, side), dtype=torch.uint8)
    for row, (key, _, _, image) in enumerate(records):
        if image.shape[1:] != (side, side):
            raise UserError(f"sample {key:08d} of {folder} is not {side} pixels wide and high; write the shards again")
        images[row] = image
    return Split(
        images=images,
        labels=torch.tensor([record[1] for record in records], dtype=torch.int64),
        keys=torch.tensor([record[0] for record in records], dtype=torch.int64),
        infos=[record[2] for record in records],
        manifest=shards.manifest,
    )


def read_images(folder: Path) -> Tensor:
    """The images alone, uint8 [N, 3, side, side]: all that a defender without labels may see."""
    return read_split(folder).images
