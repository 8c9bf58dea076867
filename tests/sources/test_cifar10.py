"""CIFAR-10: the real images where a mirror holds them, and what is said about files that are not theirs."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refine.core.errors import UserError
from refine.download import cifar
from refine.download.fetch import Remote
from refine.download.source import Source
from refine.shards.format.png import encode
from refine.shards.writer import Sample
from refine.sources import cifar10, cifar10_dev

PLACES = (0, 1, 2, 9_999, 10_000, 25_000, 49_999)
TEST_PLACES = (0, 1, 9_999)
SUMS: dict[tuple[str, int], str] = {
    ("train", 0): "0ccf0f301d962f0602bd388b2d0f27903ed997bbca40f3a67ea1a96bf873323e",
    ("train", 1): "6d96027f14a0e28513b70998749c11a398bd76a4bd3004095be30270c423e8a3",
    ("train", 2): "b9df2da68f2da4a378ad55f416621329283af8d4bc056b8b99511cb23cf2c83c",
    ("train", 9_999): "4ca3618f60e487462e83010b670003b88a4122e94b40af8b8dad7e8eeea84ff4",
    ("train", 10_000): "4c5738c933aefaa6f85de235c6124af95f819ed191635fce9d909673d2501b15",
    ("train", 25_000): "77154bf0880d3b2957307975f217f22bd0a6d1b6d29181a6d70a616dd56131bb",
    ("train", 49_999): "a8c6e26822882fe2858ebdc249230c5c83b09233bc32b70c29a53dd968233d7a",
    ("test", 0): "f51f9ad1fe20eebfea7adf6f2d36962a71e40c71174369a77e0dac3621704f9f",
    ("test", 1): "a6e9f17ff9e25f10c0f5b1bc00c3ef4965f02fe9c2dc982db7e7cd1ed6211cd8",
    ("test", 9_999): "ce0334fcbf3c52a17a94bedc01a9459b65b6e0022a065ed34a3cde277c94b9ff",
}


def source(mirror: str | None, cache: Path = Path("nowhere")) -> Source:
    """A source with this mirror."""
    return Source(mirror=mirror, own_images=Path("nowhere"), cache=cache)


# -- the real images


@pytest.fixture(scope="module")
def real(datasets: Path) -> tuple[list[Sample], list[Sample]]:
    """All samples, and the check that the sizes told are right."""
    splits = cifar10.open_source(cifar10.Params(), source(str(datasets)))
    train, test = list(splits.train), list(splits.test)
    assert splits.sizes == (len(train), len(test))
    return train, test


def test_there_are_50000_and_10000_images_as_many_of_each_class(real: tuple[list[Sample], list[Sample]]) -> None:
    train, test = real
    assert Counter(sample.label for sample in train) == dict.fromkeys(range(10), 5000)
    assert Counter(sample.label for sample in test) == dict.fromkeys(range(10), 1000)
    assert [sample.key for sample in train] == list(range(50_000))
    assert [sample.key for sample in test] == list(range(10_000))


def test_ten_images_have_these_sums(real: tuple[list[Sample], list[Sample]]) -> None:
    found = {("train", key): hashlib.sha256(encode(real[0][key].image)).hexdigest() for key in PLACES}
    found |= {("test", key): hashlib.sha256(encode(real[1][key].image)).hexdigest() for key in TEST_PLACES}
    assert found == SUMS


def test_pixels_channels_labels_and_class_names_are_torchvisions(
    real: tuple[list[Sample], list[Sample]], datasets: Path
) -> None:
    torchvision_datasets = pytest.importorskip("torchvision.datasets")
    root = datasets if (datasets / cifar.FOLDER).is_dir() else datasets / "cifar10"
    for samples, train in zip(real, (True, False), strict=True):
        theirs = torchvision_datasets.CIFAR10(root, train=train, download=False)
        assert [sample.label for sample in samples] == theirs.targets
        assert all(np.array_equal(sample.image, image) for sample, image in zip(samples, theirs.data, strict=True))
        channels = theirs.data[:1000].mean(axis=(0, 1, 2))
        assert len(set(channels.round(1))) == 3  # three different channels: an exchange of two would be seen
        assert theirs.classes == cifar.CLASSES


def test_500_of_each_class_of_the_training_images_are_held_out_for_development(
    real: tuple[list[Sample], list[Sample]], datasets: Path
) -> None:
    splits = cifar10_dev.open_source(cifar10_dev.Params(), source(str(datasets)))
    train, test = list(splits.train), list(splits.test)
    assert splits.sizes == (len(train), len(test)) == (45_000, 5_000)
    assert Counter(sample.label for sample in test) == dict.fromkeys(range(10), 500)
    for part in (train, test):
        assert [sample.key for sample in part] == list(range(len(part)))
        assert all(
            np.array_equal(sample.image, real[0][sample.info["source_index"]].image)
            and sample.label == real[0][sample.info["source_index"]].label
            for sample in part
        )
    assert sorted(sample.info["source_index"] for sample in (*train, *test)) == list(range(50_000))


def test_they_are_normalized_by_the_constants_of_the_released_code() -> None:
    opened = cifar.splits(iter(()), iter(()), (0, 0))
    assert opened.mean == (0.4914, 0.4822, 0.4465)
    assert opened.std == (0.2023, 0.1994, 0.2010)  # not the deviation over all pixels, which is about 0.25


# -- files that stand in for them


class _Authors:
    """Six small batch files in a folder, and their descriptions in the place of the published ones."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mirror = folder
        self.files = folder / cifar.FOLDER
        self.files.mkdir(parents=True)
        self.images = np.random.RandomState(0).randint(0, 256, (12, 3, 32, 32)).astype(np.uint8)
        for number, batch in enumerate(cifar.TRAIN + cifar.TEST):
            rows = slice(2 * number, 2 * number + 2)
            self.put(
                batch.name,
                {
                    "data": self.images[rows].reshape(2, -1),
                    "labels": [number, 9],
                    "filenames": [f"{number}-a.png", f"{number}-b.png"],
                },
            )
        monkeypatch.setattr(cifar, "TRAIN", tuple(map(self.described, cifar.TRAIN)))
        monkeypatch.setattr(cifar, "TEST", tuple(map(self.described, cifar.TEST)))

    def put(self, name: str, content: object) -> None:
        (self.files / name).write_bytes(pickle.dumps(content, protocol=3))

    def described(self, batch: cifar.BatchFile) -> cifar.BatchFile:
        data = (self.files / batch.name).read_bytes()
        return replace(
            batch, size=len(data), md5=hashlib.md5(data).hexdigest(), sha256=hashlib.sha256(data).hexdigest()
        )

    def archive(self, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The batch files as an archive, described in the place of the published one."""
        path = self.mirror / cifar.ARCHIVE.name
        with tarfile.open(path, "w:gz") as tar:
            tar.add(self.files, cifar.FOLDER)
        data = path.read_bytes()
        described = Remote(
            path.name, "http://nowhere", len(data), hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()
        )
        monkeypatch.setattr(cifar, "ARCHIVE", described)
        return path


@pytest.fixture
def authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Authors:
    """A small data set in the authors' format."""
    return _Authors(tmp_path / "mirror", monkeypatch)


def opened(authors: _Authors) -> tuple[list[Sample], list[Sample]]:
    """All its samples."""
    splits = cifar10.open_source(cifar10.Params(), source(str(authors.mirror)))
    return list(splits.train), list(splits.test)


def test_batch_files_are_read_in_their_order(authors: _Authors) -> None:
    train, test = opened(authors)
    assert [sample.label for sample in train] == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert [sample.label for sample in test] == [5, 9]
    assert [sample.info["file"] for sample in test] == ["5-a.png", "5-b.png"]
    for sample, image in zip((*train, *test), authors.images, strict=True):
        assert np.array_equal(sample.image, image.transpose(1, 2, 0))


def test_which_images_are_held_out_is_decided_by_the_seed_alone(
    authors: _Authors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10_dev, "HELD_OUT_PER_CLASS", 1)

    def held_out(seed: int) -> list[Any]:
        splits = cifar10_dev.open_source(cifar10_dev.Params(split_seed=seed), source(str(authors.mirror)))
        return [(sample.label, sample.info["source_index"]) for sample in splits.test]

    assert [label for label, _ in held_out(0)].count(9) == 1
    assert held_out(0) == held_out(0)
    assert len({tuple(held_out(seed)) for seed in range(10)}) > 1


def test_the_archive_serves_as_well_as_the_folder(authors: _Authors, monkeypatch: pytest.MonkeyPatch) -> None:
    from_folder = opened(authors)
    authors.archive(monkeypatch)
    for path in authors.files.iterdir():
        path.unlink()
    authors.files.rmdir()
    from_archive = opened(authors)
    assert [sample.image.tobytes() for split in from_archive for sample in split] == [
        sample.image.tobytes() for split in from_folder for sample in split
    ]


def test_the_folder_may_lie_in_a_folder_of_the_mirror_called_cifar10(authors: _Authors) -> None:
    (authors.mirror / "cifar10").mkdir()
    authors.files.rename(authors.mirror / "cifar10" / cifar.FOLDER)
    assert len(opened(authors)[0]) == 10


def test_a_changed_batch_file_is_named_before_it_is_interpreted(authors: _Authors) -> None:
    path = authors.files / "data_batch_3"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"^{path} is not the published file"):
        opened(authors)


def test_a_missing_batch_file_is_named(authors: _Authors) -> None:
    (authors.files / "test_batch").unlink()
    with pytest.raises(UserError, match=r"test_batch is missing; complete the mirror or unset REFINE_MIRROR"):
        opened(authors)


def test_a_changed_archive_is_named(authors: _Authors, monkeypatch: pytest.MonkeyPatch) -> None:
    path = authors.archive(monkeypatch)
    path.write_bytes(path.read_bytes()[:-1])
    authors.files.rename(authors.mirror / "away")
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz is not the published"):
        opened(authors)


def test_a_mirror_without_the_files_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}/cifar-10-python\.tar\.gz is missing"):
        cifar10.open_source(cifar10.Params(), source(str(tmp_path)))


class _Calls:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "posix.system"), (eval, "eval"), (np.load, "load"), (np.fromfile, "fromfile")]
)
def test_the_unpickler_calls_nothing(tmp_path: Path, function: Any, name: str) -> None:
    data = pickle.dumps(_Calls(function, f"touch {tmp_path}/ran"))
    with pytest.raises(UserError, match=rf"asks for .*{name}, which no such file needs"):
        cifar._ArraysOnly(io.BytesIO(data)).load()
    assert list(tmp_path.iterdir()) == []


def test_an_array_of_objects_brings_no_code_either() -> None:
    data = pickle.dumps({"data": np.array([_Calls(os.getcwd)], dtype=object)})
    with pytest.raises(UserError, match=r"asks for posix\.getcwd"):
        cifar._ArraysOnly(io.BytesIO(data)).load()


@pytest.mark.parametrize("protocol", [3, 4])
def test_the_unpickler_reads_arrays(protocol: int) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = pickle.dumps({"data": array, "labels": [1, 2]}, protocol=protocol)
    read = cifar._ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    assert np.array_equal(read["data"], array)
