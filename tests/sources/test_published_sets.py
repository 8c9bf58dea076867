"""Published data sets are read out of archives of their layout: here small ones, which each test makes."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from refine.core.errors import UserError
from refine.core.registry import SOURCES, component, names
from refine.download import imagenet, signs
from refine.download.download import write_splits
from refine.download.fetch import Remote
from refine.download.source import Source, Splits
from refine.shards.reading.reader import read_split
from refine.shards.writer import Sample
from refine.sources import gtsrb, stl10
from support import PROJECT

LIBRARY = {
    "cifar100": "cifar",
    "flowers102": "flowers102",
    "food101": "food101",
    "gtsrb": "gtsrb",
    "imagenette": "imagenette",
    "stl10": "stl10",
    "svhn": "svhn",
}
"""Our sources, and the modules of torchvision.datasets that name the same files."""


@dataclass(frozen=True)
class _Mirror(Source):
    """Gives the small archives of a test in the place of the published ones."""

    def fetch(self, remote: Remote) -> Path:
        path = Path(str(self.mirror)) / remote.name
        assert path.is_file(), f"{remote.name} is fetched, which the test did not make"
        return path


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder for archives."""
    (tmp_path / "mirror").mkdir()
    return tmp_path / "mirror"


def opened(name: str, mirror: Path, **settings: object) -> Splits:
    """The data set."""
    module = component(SOURCES, name, "a test")
    splits: Splits = module.open_source(
        module.Params.model_validate(settings), _Mirror(str(mirror), mirror / "own", mirror / "cache")
    )
    return splits


def both(splits: Splits) -> tuple[list[Sample], list[Sample]]:
    """All samples; their keys count from 0, and their images have the stated size."""
    parts = list(splits.train), list(splits.test)
    for part in parts:
        assert [sample.key for sample in part] == list(range(len(part)))
        assert all(sample.image.shape == (splits.side, splits.side, 3) for sample in part)
        assert all(sample.image.dtype == np.uint8 for sample in part)
    return parts


def noise(seed: int, *shape: int) -> np.ndarray:
    """Random pixels."""
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def file(seed: int, form: str = "PNG", width: int = 40, height: int = 30) -> bytes:
    """An image file of random pixels."""
    content = io.BytesIO()
    Image.fromarray(noise(seed, height, width, 3)).save(content, form)
    return content.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> None:
    """Writes an archive with the files in this order."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def zipped(path: Path, files: dict[str, bytes]) -> None:
    """Writes an archive with the files in this order."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def make_cifar100(mirror: Path) -> None:
    def part(seed: int, labels: list[int]) -> bytes:
        count = len(labels)
        names = [f"{seed}_{number}.png" for number in range(count)]
        content = {"data": noise(seed, count, 3072), "fine_labels": labels, "coarse_labels": labels, "filenames": names}
        return pickle.dumps(content, protocol=3)

    meta = {"fine_label_names": ["apple", "aquarium_fish", "baby"], "coarse_label_names": ["x"]}
    files = {"meta": pickle.dumps(meta, protocol=3), "test": part(1, [2, 0]), "train": part(0, [1, 1, 2])}
    tar(mirror / "cifar-100-python.tar.gz", {f"cifar-100-python/{name}": content for name, content in files.items()})


def make_svhn(mirror: Path) -> None:
    for name, seed, labels in (("train", 0, [1, 10, 9]), ("test", 1, [10, 2])):
        content = {"X": noise(seed, 32, 32, 3, len(labels)), "y": np.array(labels, dtype=np.uint8)[:, None]}
        savemat(mirror / f"{name}_32x32.mat", content, do_compression=True)


def make_stl10(mirror: Path) -> None:
    files = {"stl10_binary/unlabeled_X.bin": b"x" * 1000}
    for name, seed, labels in (("test", 1, [10, 1]), ("train", 0, [3, 1, 2])):
        files[f"stl10_binary/{name}_X.bin"] = noise(seed, len(labels), 3, 96, 96).tobytes()
        files[f"stl10_binary/{name}_y.bin"] = bytes(labels)
    tar(mirror / "stl10_binary.tar.gz", files)


def make_imagenette(mirror: Path) -> None:
    files = {"imagenette2-160/noisy_imagenette.csv": b"x"}
    for split, seed in (("val", 9), ("train", 0)):
        for number, wnid in enumerate(("n02102040", "n01440764", "n02102040")):
            files[f"imagenette2-160/{split}/{wnid}/{seed + number}.JPEG"] = file(seed + number, "JPEG")
    tar(mirror / "imagenette2-160.tgz", files)


def make_flowers102(mirror: Path) -> None:
    tar(mirror / "102flowers.tgz", {f"jpg/image_{number:05d}.jpg": file(number, "JPEG") for number in (3, 1, 2, 4)})
    savemat(mirror / "imagelabels.mat", {"labels": np.array([[77, 1, 102, 5]], dtype=np.uint8)})
    savemat(mirror / "setid.mat", {"trnid": np.array([[2]]), "valid": np.array([[1]]), "tstid": np.array([[3, 4]])})


def make_food101(mirror: Path) -> None:
    lists = {"train": {"sushi": ["sushi/1"], "apple_pie": ["apple_pie/3", "apple_pie/2"]}}
    lists["test"] = {"apple_pie": ["apple_pie/9"], "sushi": ["sushi/8"]}
    names = ("sushi/1", "apple_pie/2", "apple_pie/3", "sushi/8", "apple_pie/9")
    files = {f"food-101/images/{name}.jpg": file(number, "JPEG") for number, name in enumerate(names)}
    for split, content in lists.items():
        files[f"food-101/meta/{split}.json"] = json.dumps(content).encode()
    tar(mirror / "food-101.tar.gz", files)


def make_gtsrb(mirror: Path) -> None:
    for archive, folder in (
        ("GTSRB_Final_Training_Images.zip", "Final_Training/Images"),
        ("GTSRB-Training_fixed.zip", "Training"),
    ):
        files = {f"GTSRB/{folder}/00042/GT-00042.csv": b"x"}
        for name in ("00042/00000_00001", "00042/00000_00000", "00000/00000_00000"):
            files[f"GTSRB/{folder}/{name}.ppm"] = file(len(files), "PPM")
        zipped(mirror / archive, files)
    images = {f"GTSRB/Final_Test/Images/0000{number}.ppm": file(10 + number, "PPM") for number in range(2)}
    zipped(mirror / "GTSRB_Final_Test_Images.zip", images)
    rows = (
        "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n00000.ppm;9;9;1;1;2;2;16\n00001.ppm;9;9;1;1;2;2;1\n"
    )
    zipped(mirror / "GTSRB_Final_Test_GT.zip", {"GT-final_test.csv": rows.encode()})


MAKE: dict[str, Callable[[Path], None]] = {name: globals()[f"make_{name}"] for name in LIBRARY}
SETTINGS: dict[str, dict[str, object]] = {"imagenette": {"photos": "160px"}}
FOUND = {
    "cifar100": (["aquarium fish", "aquarium fish", "baby"], ["baby", "apple"]),
    "flowers102": (["passion flower", "pink primrose"], ["blackberry lily", "english marigold"]),
    "food101": (["sushi", "apple pie", "apple pie"], ["sushi", "apple pie"]),
    "gtsrb": (["speed limit 20", *["end of no passing for trucks"] * 2], ["no trucks", "speed limit 30"]),
    "imagenette": (
        ["English springer", "tench", "English springer"],
        ["English springer", "tench", "English springer"],
    ),
    "stl10": (["car", "airplane", "bird"], ["truck", "airplane"]),
    "svhn": (["1", "0", "9"], ["0", "2"]),
}
"""The classes of the images that the archives hold, in the order in which they are read."""


@pytest.mark.parametrize("name", LIBRARY)
def test_labels_and_order_are_those_of_the_archive(name: str, mirror: Path) -> None:
    MAKE[name](mirror)
    splits = opened(name, mirror, **SETTINGS.get(name, {}))
    train, test = both(splits)
    assert tuple([splits.classes[sample.label] for sample in part] for part in (train, test)) == FOUND[name]
    if name not in ("cifar100", "svhn"):  # whose sizes are told, not counted
        assert splits.sizes == (len(train), len(test))
    again = opened(name, mirror, **SETTINGS.get(name, {}))
    assert all(np.array_equal(one.image, other.image) for one, other in zip(train, again.train, strict=True))
    assert len({sample.info["file"] for sample in (*train, *test)}) == len(train) + len(test)


def test_pixels_of_arrays_stand_upright(mirror: Path) -> None:
    make_cifar100(mirror)
    make_svhn(mirror)
    make_stl10(mirror)
    train, _ = both(opened("cifar100", mirror))
    assert np.array_equal(train[1].image, noise(0, 3, 3072)[1].reshape(3, 32, 32).transpose(1, 2, 0))
    train, _ = both(opened("svhn", mirror))
    assert np.array_equal(train[1].image, noise(0, 32, 32, 3, 3)[..., 1])
    train, _ = both(opened("stl10", mirror))
    columns = noise(0, 3, 3, 96, 96)[1]  # channel, column, row
    assert train[1].image[5, 7].tolist() == columns[:, 7, 5].tolist()


def test_photographs_keep_their_aspect_ratio_and_signs_do_not(mirror: Path) -> None:
    make_gtsrb(mirror)
    make_imagenette(mirror)
    train, _ = both(opened("gtsrb", mirror))
    with Image.open(io.BytesIO(file(3, "PPM"))) as image:
        assert np.array_equal(train[0].image, np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)))
    train, _ = both(opened("imagenette", mirror, photos="160px", side=24, resize=30))
    with Image.open(io.BytesIO(file(0, "JPEG"))) as image:
        wide = image.resize((40, 30), Image.Resampling.BILINEAR)
    assert np.array_equal(train[0].image, np.asarray(wide.crop((8, 3, 32, 27))))


def test_both_training_sets_of_signs_are_there(mirror: Path) -> None:
    make_gtsrb(mirror)
    (mirror / "GTSRB_Final_Training_Images.zip").unlink()
    train, _ = both(opened("gtsrb", mirror, training="online"))
    assert train[0].info["file"] == "GTSRB/Training/00000/00000_00000.ppm"
    assert len(signs.CLASSES) == len(set(signs.CLASSES)) == 43


def test_a_data_set_becomes_shards(mirror: Path, tmp_path: Path) -> None:
    make_gtsrb(mirror)
    write_splits(opened("gtsrb", mirror), "gtsrb", tmp_path / "train", tmp_path / "test", 2)
    split = read_split(tmp_path / "train")
    assert split.labels.tolist() == [0, 42, 42]
    assert split.manifest.classes == signs.CLASSES


def test_a_pickle_that_runs_code_is_refused(mirror: Path) -> None:
    content = pickle.dumps({"fine_label_names": print})
    tar(mirror / "cifar-100-python.tar.gz", {"cifar-100-python/meta": content})
    with pytest.raises(UserError, match=r"a file of CIFAR asks for builtins\.print"):
        opened("cifar100", mirror)


def test_paths_in_an_archive_lead_nowhere(mirror: Path, tmp_path: Path) -> None:
    make_imagenette(mirror)
    with tarfile.open(mirror / "imagenette2-160.tgz") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    outside = {"../train/n01440764/escaped.JPEG": file(1), f"{tmp_path}/train/n01440764/escaped.JPEG": file(1)}
    tar(mirror / "imagenette2-160.tgz", {**outside, **files})
    before = sorted(tmp_path.rglob("*"))
    both(opened("imagenette", mirror, photos="160px"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["stl10", "imagenette", "flowers102", "food101", "gtsrb"])
def test_a_damaged_archive_is_refused_in_one_sentence(name: str, mirror: Path) -> None:
    MAKE[name](mirror)
    for path in mirror.iterdir():
        if path.suffix in (".tgz", ".gz", ".zip"):
            path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UserError, match="download it again"):
        both(opened(name, mirror, **SETTINGS.get(name, {})))


def test_a_missing_image_is_named(mirror: Path) -> None:
    make_flowers102(mirror)
    tar(mirror / "102flowers.tgz", {"jpg/image_00002.jpg": file(2, "JPEG")})
    with pytest.raises(UserError, match=r"lacks 1 of the files .*jpg/image_00001\.jpg"):
        both(opened("flowers102", mirror))


def test_a_file_that_is_no_image_is_named_with_its_archive(mirror: Path) -> None:
    make_flowers102(mirror)
    tar(mirror / "102flowers.tgz", {f"jpg/image_0000{number}.jpg": b"no image" for number in range(1, 5)})
    with pytest.raises(UserError, match=r"102flowers\.tgz:jpg/image_00001\.jpg cannot be read as an image"):
        both(opened("flowers102", mirror))


def _remotes(name: str) -> Iterator[Remote]:
    for value in vars(import_module(f"refine.sources.{name}")).values():
        yield from (each for each in (value.values() if isinstance(value, dict) else [value]) if type(each) is Remote)


@pytest.mark.parametrize("name", LIBRARY)
def test_addresses_and_sums_are_those_of_torchvision(name: str) -> None:
    source = inspect.getsource(import_module(f"torchvision.datasets.{LIBRARY[name]}"))
    remotes = list(_remotes(name))
    assert remotes
    for remote in remotes:
        if remote is gtsrb.TRAINING["final"]:  # which torchvision does not have
            continue
        assert remote.md5 in source
        assert remote.name in source
        assert remote.url.removesuffix(remote.name) in source


def test_every_source_is_in_the_table_of_data_sets() -> None:
    page = (PROJECT / "docs/data-sets.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == names(SOURCES)


def test_names_of_classes_are_those_of_torchvision() -> None:
    from torchvision.datasets import Imagenette

    assert {wnid: names[0] for wnid, names in Imagenette._WNID_TO_CLASS.items()} == imagenet.TEN
    assert len(stl10.CLASSES) == 10
