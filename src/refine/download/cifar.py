"""The files of CIFAR-10 in the authors' "python version": 60,000 images, 32x32 RGB, ten classes.

They come from the authors' archive over HTTPS, or from a mirror (`REFINE_MIRROR`): a folder with
`cifar-10-python.tar.gz` or the unpacked `cifar-10-batches-py`, or a URL below which the archive lies.
Size, MD5 (as published) and SHA-256 are checked before the files are parsed. The batch files are pickles; they are
read by an unpickler that only accepts NumPy arrays and plain containers.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from refine.core.errors import UserError
from refine.download.fetch import Remote
from refine.download.source import Source, Splits
from refine.shards.writer import Sample

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SIDE = 32
FOLDER = "cifar-10-batches-py"
ARCHIVE = Remote(
    name="cifar-10-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    size=170_498_071,
    md5="c58f30108f718f92721af3b95e74349a",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)


@dataclass(frozen=True)
class BatchFile:
    """A batch file: its name, size in bytes, MD5 and SHA-256."""

    name: str
    size: int
    md5: str
    sha256: str


TRAIN = (
    BatchFile(
        "data_batch_1",
        31_035_704,
        "c99cafc152244af753f735de768cd75f",
        "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    ),
    BatchFile(
        "data_batch_2",
        31_035_320,
        "d4bba439e000b95fd0a9bffe97cbabec",
        "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    ),
    BatchFile(
        "data_batch_3",
        31_035_999,
        "54ebc095f3ab1f0389bbae665268c751",
        "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    ),
    BatchFile(
        "data_batch_4",
        31_035_696,
        "634d18415352ddfa80567beed471001a",
        "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    ),
    BatchFile(
        "data_batch_5",
        31_035_623,
        "482c414d41f54cd18b22e5b47cb7c3cb",
        "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    ),
)
TEST = (
    BatchFile(
        "test_batch",
        31_035_526,
        "40351d587109b95175f43aff81a1287e",
        "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    ),
)


def splits(train: Iterator[Sample], test: Iterator[Sample], sizes: tuple[int, int]) -> Splits:
    """A data set made from images of CIFAR-10; `sizes` are the numbers of training and of test images."""
    return Splits(
        classes=CLASSES,
        side=SIDE,
        train=train,
        test=test,
        sizes=sizes,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    )


def read(source: Source) -> dict[str, bytes]:
    """Contents of all batch files by name, after checking them.

    Raises:
        UserError: the files can neither be found nor downloaded, or are not the published ones.
    """
    folder = _mirrored_folder(source.mirror)
    if folder is not None:
        contents = {batch.name: _read(folder / batch.name) for batch in TRAIN + TEST}
    else:
        archive = source.fetch(ARCHIVE)
        with tarfile.open(archive) as tar:
            contents = {batch.name: _member(tar, batch.name) for batch in TRAIN + TEST}
    for batch in TRAIN + TEST:
        content = contents[batch.name]
        if (len(content), hashlib.md5(content).hexdigest()) != (batch.size, batch.md5) or (  # noqa: S324
            hashlib.sha256(content).hexdigest() != batch.sha256
        ):
            where = folder / batch.name if folder else batch.name
            raise UserError(f"{where} is not the published file (size, md5 or sha256 differ); download it again")
    return contents


def _mirrored_folder(mirror: str | None) -> Path | None:
    if mirror is None or "://" in mirror:
        return None
    for root in (Path(mirror), Path(mirror) / "cifar10"):
        if (root / FOLDER).is_dir():
            return root / FOLDER
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; complete the mirror or unset REFINE_MIRROR") from None


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(f"{FOLDER}/{name}")
    if file is None:
        raise UserError(f"{ARCHIVE.name} contains no file {FOLDER}/{name}; download it again")
    return file.read()


def samples(files: dict[str, bytes], batches: tuple[BatchFile, ...]) -> Iterator[Sample]:
    """Yields the images of some batch files in order; keys and source indices count from 0."""
    key = 0
    for batch in batches:
        for sample in samples_of(unpickled(files[batch.name]), "labels"):
            yield replace(sample, key=key, info={**sample.info, "source_index": key})
            key += 1


def samples_of(content: dict[str, Any], labels: str) -> Iterator[Sample]:
    """Yields the images of a batch file in order.

    Args:
        content: the unpickled file.
        labels: name of its labels.
    """
    images = np.asarray(content["data"], dtype=np.uint8).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    rows = zip(images, content[labels], content["filenames"], strict=True)
    for key, (image, label, name) in enumerate(rows):
        yield Sample(key, image, int(label), {"source_index": key, "file": str(name)})


def unpickled(data: bytes) -> Any:
    """The content of a file of CIFAR-10 or CIFAR-100.

    Raises:
        UserError: it asks for anything but plain containers and NumPy arrays.
    """
    return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()


class _ArraysOnly(pickle.Unpickler):
    """An unpickler for plain containers and NumPy arrays; it refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return np.zeros(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise UserError(f"a file of CIFAR asks for {module}.{name}, which no such file needs; download it again")
