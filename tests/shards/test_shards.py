"""Shards hold what was written, give every sample once, and are refused when anything about them changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from refine.core.errors import UserError
from refine.core.files import sha256_of
from refine.download.download import write_splits
from refine.download.source import Splits
from refine.shards.format import manifest, png
from refine.shards.reading.folder import complete
from refine.shards.reading.reader import Shards, loaded, read_split
from refine.shards.reading.shard import Chunk, read_shard
from refine.shards.writer import Sample, write_shards
from support import description, png_of, synthetic, write_split

PER_SHARD = 8

pytestmark = [
    pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def entries(shard: Path) -> list[tuple[str, bytes]]:
    """Names and contents of the files in a shard."""
    with tarfile.open(shard) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def rewrite(shard: Path, files: list[tuple[str, bytes]], adjust_manifest: bool = True) -> None:
    """Puts other files into a shard, and by default makes the manifest agree."""
    with tarfile.open(shard, "w") as tar:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    if adjust_manifest:
        path = shard.parent / manifest.NAME
        content = json.loads(path.read_text())
        for entry in content["shards"]:
            if entry["name"] == shard.name:
                entry["sha256"] = sha256_of(shard)
        path.write_text(json.dumps(content))


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    """Twenty images: two full shards and a half one."""
    return synthetic(20)


@pytest.fixture
def folder(tmp_path: Path, images: tuple[Tensor, Tensor]) -> Path:
    """The images as shards."""
    write_split(tmp_path / "split", *images, samples_per_shard=PER_SHARD)
    return tmp_path / "split"


# -- writing


def test_what_was_written_is_read(folder: Path, images: tuple[Tensor, Tensor]) -> None:
    split = read_split(folder)
    assert torch.equal(split.images, images[0])
    assert torch.equal(split.labels, images[1])
    assert split.keys.tolist() == list(range(20))
    assert split.infos == [{"source_index": key, "file": f"{key}.png"} for key in range(20)]
    only = read_split(folder, only_images=True)
    assert torch.equal(only.images, images[0])
    assert (only.labels.shape, only.labels.dtype, only.infos) == ((0,), torch.int64, [])


def test_the_manifest_describes_the_folder(folder: Path) -> None:
    written = complete(folder)
    assert [(shard.name, shard.samples) for shard in written.shards] == [
        ("shard-000000.tar", 8),
        ("shard-000001.tar", 8),
        ("shard-000002.tar", 4),
    ]
    assert written.samples == 20
    assert written.counts == [7, 7, 6]
    assert written.description == description()
    for shard in written.shards:
        assert hashlib.sha256((folder / shard.name).read_bytes()).hexdigest() == shard.sha256


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, folder: Path, images: tuple[Tensor, Tensor]) -> None:
    os.utime(folder, (1, 1))
    write_split(tmp_path / "again", *images, samples_per_shard=PER_SHARD)
    assert contents(folder) == contents(tmp_path / "again")


def test_tar_headers_tell_nothing_of_the_time_or_the_person(folder: Path) -> None:
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                assert member.isreg()
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                assert (member.uname, member.gname) == ("", "")
                assert member.mode == 0o444
                assert member.pax_headers == {}


def test_a_shard_is_what_the_standard_library_writes(folder: Path) -> None:
    for shard in sorted(folder.glob("*.tar")):
        rewritten = io.BytesIO()
        with tarfile.open(shard) as read, tarfile.open(fileobj=rewritten, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for member in read.getmembers():
                plain = tarfile.TarInfo(member.name)
                plain.size, plain.mode = member.size, 0o444
                tar.addfile(plain, read.extractfile(member))
        assert rewritten.getvalue() == shard.read_bytes()


def test_what_does_not_fit_a_header_is_refused_and_not_cut(tmp_path: Path) -> None:
    sample = Sample(10**98, np.zeros((4, 4, 3), dtype=np.uint8), 0, {})
    with pytest.raises(ValueError, match="does not fit a tar header"):
        write_shards(tmp_path, [sample], description(side=4))


def test_a_sample_is_three_files_beside_each_other(folder: Path) -> None:
    names = [name for name, _ in entries(folder / "shard-000001.tar")]
    assert names == [f"{key:08d}.{ending}" for key in range(8, 16) for ending in ("cls", "json", "png")]


def test_no_samples_make_an_empty_folder_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    written = write_shards(tmp_path / "empty", [], description())
    assert (written.samples, written.shards, written.counts) == (0, [], [0, 0, 0])
    assert sorted(contents(tmp_path / "empty")) == [manifest.NAME]
    split = read_split(tmp_path / "empty")
    assert split.images.shape == (0, 3, 16, 16)
    assert split.labels.shape == split.keys.shape == (0,)


def test_flags_are_read_from_the_json(tmp_path: Path, images: tuple[Tensor, Tensor]) -> None:
    (tmp_path / "flagged").mkdir()
    samples = [
        Sample(key, image.permute(1, 2, 0).numpy(), 0, {"poisoned": key % 3 == 0})
        for key, image in enumerate(images[0][:7])
    ]
    write_shards(tmp_path / "flagged", samples, description())
    assert read_split(tmp_path / "flagged").flags("poisoned").tolist() == [True, False, False, True, False, False, True]


# -- reading


def keys_of(chunks: Iterable[Chunk]) -> list[int]:
    """The keys of some shards, in order."""
    return [key for chunk in chunks for key in chunk.keys.tolist()]


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_every_sample_comes_exactly_once_in_order_however_many_workers_read(
    tmp_path: Path, shards: int, workers: int
) -> None:
    images, labels = synthetic(4 * shards - 1, side=4)
    write_split(tmp_path / "split", images, labels, samples_per_shard=4)
    read = list(loaded(Shards(tmp_path / "split"), workers))
    assert len(read) == len(list(tmp_path.glob("split/*.tar"))) == shards
    assert keys_of(read) == list(range(len(images)))
    assert torch.equal(torch.cat([chunk.images for chunk in read]), images)
    assert torch.equal(torch.cat([chunk.labels for chunk in read]), labels)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_shards_come_in_the_order_that_was_asked_for(folder: Path, workers: int) -> None:
    shards = Shards(folder)
    shards.order = [2, 0]
    assert keys_of(loaded(shards, workers)) == [*range(16, 20), *range(8)]
    shards.order = []
    assert keys_of(loaded(shards, workers)) == []


def test_a_second_pass_gives_the_same_samples(folder: Path) -> None:
    shards = Shards(folder)
    assert keys_of(shards) == keys_of(shards) == list(range(20))


def test_where_only_images_are_wanted_nothing_else_is_opened(folder: Path, images: tuple[Tensor, Tensor]) -> None:
    for shard in sorted(folder.glob("*.tar")):
        spoilt = [(name, data if name.endswith("png") else b"\xff") for name, data in entries(shard)]
        rewrite(shard, spoilt)
    assert torch.equal(read_split(folder, only_images=True).images, images[0])
    with pytest.raises(UserError, match="sample 00000000"):
        read_split(folder)


def _by_pillow(shard: Path) -> dict[int, bytes]:
    """The pixels of each image in a shard, by Python's tarfile and Pillow."""
    pixels = {}
    for name, data in entries(shard):
        if name.endswith(".png"):
            with Image.open(io.BytesIO(data)) as image:
                pixels[int(name.partition(".")[0])] = image.convert("RGB").tobytes()
    return pixels


@pytest.mark.parametrize("side", [4, 16, 147, 148, 224])
def test_other_readers_read_the_same_from_shards(tmp_path: Path, side: int) -> None:
    write_split(tmp_path / "split", *synthetic(5, side=side), samples_per_shard=3)
    read = read_split(tmp_path / "split")
    others = {key: data for path in tmp_path.glob("split/*.tar") for key, data in _by_pillow(path).items()}
    ours = {key: image.permute(1, 2, 0).numpy().tobytes() for key, image in enumerate(read.images)}
    assert ours == others


def test_an_image_that_another_program_wrote_is_read_as_well(folder: Path, images: tuple[Tensor, Tensor]) -> None:
    shard = folder / "shard-000001.tar"
    foreign = io.BytesIO()
    Image.fromarray(images[0][10].permute(1, 2, 0).contiguous().numpy()).save(foreign, "PNG")
    files = [(name, foreign.getvalue() if name == "00000010.png" else data) for name, data in entries(shard)]
    rewrite(shard, files)
    assert torch.equal(read_split(folder).images, images[0])


def test_files_of_a_sample_may_lie_in_any_order(folder: Path, images: tuple[Tensor, Tensor]) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, sorted(entries(shard), key=lambda entry: entry[0].partition(".")[::-1]))
    assert torch.equal(read_split(folder).images, images[0])


def test_a_split_in_memory_is_in_the_order_of_its_keys(tmp_path: Path) -> None:
    images, _ = synthetic(12)
    order = [7, 3, 11, 0, 4, 1, 10, 2, 9, 5, 8, 6]
    (tmp_path / "split").mkdir()
    samples = [Sample(key, images[key].permute(1, 2, 0).numpy(), key % 3, {"was": key}) for key in order]
    write_shards(tmp_path / "split", samples, description(samples_per_shard=5))
    split = read_split(tmp_path / "split")
    assert split.keys.tolist() == list(range(12))
    assert torch.equal(split.images, images)
    assert split.labels.tolist() == [key % 3 for key in range(12)]
    assert [info["was"] for info in split.infos] == list(range(12))


# -- damage


def _cut(folder: Path) -> None:
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-5000])


def _flip_a_bit(folder: Path) -> None:
    path = folder / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _lose(folder: Path) -> None:
    (folder / "shard-000001.tar").unlink()


def _add(folder: Path) -> None:
    (folder / "shard-000003.tar").write_bytes((folder / "shard-000002.tar").read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "shard-000001.tar is damaged: its sha256"),
        (_flip_a_bit, "shard-000001.tar is damaged: its sha256"),
        (_lose, "shard-000001.tar is missing"),
        (_add, "shard-000003.tar is not in manifest.json"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file_named(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(UserError) as refused:
        read_split(folder)
    assert str(refused.value).startswith(f"{folder}/{message}")
    assert f"remove {folder} and run `dvc repro`" in str(refused.value)


def _changed(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(key, value)


def _shard_changed(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["shards"][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_changed("format_version", 2), "format_version"),
        (_changed("side", "16"), "side"),
        (_changed("stranger", 1), "stranger"),
        (_changed("counts", None), "counts"),
        (_shard_changed("name", "../../shard-000000.tar"), "shards.0.name"),
        (_shard_changed("name", "shard-000000.tar\n"), "shards.0.name"),
        (_shard_changed("sha256", "0" * 63), "shards.0.sha256"),
        (_shard_changed("samples", 0), "shards.0.samples"),
        (_shard_changed("samples", 10**15), "shards.0.samples"),
        (_shard_changed("name", "shard-000001.tar"), "all of it: a shard is listed twice"),
        (_shard_changed("samples", 7), "all of it: shards differ in size from samples_per_shard"),
        (_changed("samples_per_shard", 7), "all of it: shards differ in size from samples_per_shard"),
        (_changed("samples_per_shard", 10**15), "samples_per_shard"),
        (_changed("side", 20_000), "side"),
        (_changed("side", 10**9), "side"),
        (_changed("side", 0), "side"),
        (_changed("std", [0.5, 0.0, 0.5]), "std.1"),
        (_changed("std", [0.5, 1e-300, 0.5]), "std.1"),
        (_changed("std", [0.5, 0.5]), "std"),
        (_changed("mean", [0.5, 1e300, 0.5]), "mean.1"),
        (_changed("mean", [0.5] * 4), "mean"),
        (_changed("counts", [7, 7, 7]), "all of it: counts do not match its classes and shards"),
        (_changed("counts", [20]), "all of it: counts do not match its classes and shards"),
        (_changed("counts", [-1, 15, 6]), "counts.0"),
        (_changed("classes", ["a", "b", "a"]), "all of it: two classes have the same name"),
        (_changed("classes", ["a", "", "b"]), "classes.1"),
        (_changed("classes", ["x" * 10**6, "b", "c"]), "classes.0"),
        (_changed("classes", ["a"]), "all of it: classes are fewer than two"),
        (_changed("x" * 10**6, 1), "x" * 200),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_damaged_manifest_is_refused_with_the_place_named(
    folder: Path, change: Callable[[dict[str, Any]], None], where: str
) -> None:
    path = folder / manifest.NAME
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        Shards(folder)
    assert str(refused.value).startswith(f"{path} cannot be used ({where}")
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "not valid JSON"),
        ('{"side": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"mean": [NaN]}', "NaN is no number"),
        (" " * (2**24 + 1), "larger than the 16 MiB"),
    ],
    ids=["deep", "long number", "NaN", "large"],
)
def test_a_manifest_that_would_break_a_reader_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / manifest.NAME).write_text(text)
    with pytest.raises(UserError, match=message):
        Shards(folder)


def test_a_folder_in_the_place_of_the_manifest_is_refused(folder: Path) -> None:
    (folder / manifest.NAME).unlink()
    (folder / manifest.NAME).mkdir()
    with pytest.raises(UserError, match=r"manifest\.json is not a file; remove"):
        Shards(folder)


def test_a_shard_that_cannot_hold_its_samples_is_refused_before_anything_is_allocated(folder: Path) -> None:
    path = folder / manifest.NAME
    content = json.loads(path.read_text())
    content["samples_per_shard"] = content["shards"][0]["samples"] = 10**6
    content["shards"], content["counts"] = content["shards"][:1], [10**6, 0, 0]
    path.write_text(json.dumps(content))
    for name in ("shard-000001.tar", "shard-000002.tar"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"shard-000000\.tar is too small for the 1000000 samples of manifest\.json"):
        Shards(folder)


def test_shards_of_more_samples_than_fit_in_names_are_not_begun(tmp_path: Path) -> None:
    splits = Splits(["a", "b"], 4, iter(()), iter(()), (100_001, 1), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(UserError, match=r"download\.samples_per_shard: 100,001 images .* more than 100,000 shards"):
        write_splits(splits, "many", tmp_path / "train", tmp_path / "test", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_manifest_is_refused(folder: Path) -> None:
    path = folder / manifest.NAME
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=r"manifest\.json is not valid JSON"):
        Shards(folder)


def test_a_missing_manifest_or_folder_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / manifest.NAME).unlink()
    for place in (folder, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"{place}/manifest\.json is missing; remove .* and run `dvc repro`"):
            Shards(place)


@pytest.mark.parametrize(
    ("ending", "content", "workers"),
    [
        ("png", b"no image", 0),
        ("png", b"no image", 2),  # one of these is enough: torch needs seconds to end the workers after an error
        ("png", b"", 0),
        ("cls", b"three", 0),
        ("json", b"{", 0),
        ("png", None, 0),
    ],
)
def test_a_sample_that_cannot_be_decoded_is_named_in_one_sentence(
    folder: Path, ending: str, content: bytes | None, workers: int
) -> None:
    shard = folder / "shard-000001.tar"
    damaged = f"00000010.{ending}"
    files = [(name, content if name == damaged else data) for name, data in entries(shard)]
    rewrite(shard, [(name, data) for name, data in files if data is not None])
    with pytest.raises(UserError) as refused:
        list(loaded(Shards(folder), workers))
    assert str(refused.value).startswith(f"sample 00000010 of {shard} cannot be decoded (")
    assert "Traceback" not in str(refused.value)


def test_a_shard_that_changes_while_it_is_streamed_is_noticed(folder: Path) -> None:
    shards = Shards(folder)
    shard = folder / "shard-000001.tar"
    rewrite(shard, entries(shard)[:-3], adjust_manifest=False)
    with pytest.raises(UserError, match=r"shard-000001\.tar is damaged: its sha256"):
        list(loaded(shards, 0))
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar can no longer be read \(No such file"):
        list(loaded(shards, 0))


def _adjusted(folder: Path, content: bytes) -> None:
    """Puts other bytes in the place of a shard, and makes the manifest agree."""
    shard = folder / "shard-000001.tar"
    shard.write_bytes(content)
    changed = json.loads((folder / manifest.NAME).read_text())
    changed["shards"][1]["sha256"] = sha256_of(shard)
    (folder / manifest.NAME).write_text(json.dumps(changed))


@pytest.mark.parametrize("content", ["cut", b"no tar at all" * 4000, b"\xff" * 32768])
def test_a_file_that_is_no_shard_is_noticed_whatever_the_manifest_says(folder: Path, content: bytes | str) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, [*entries(shard)[:-1], (entries(shard)[-1][0], bytes(20_000))])
    _adjusted(folder, shard.read_bytes()[:30_000] if isinstance(content, str) else content)
    with pytest.raises(UserError, match=r"shard-000001\.tar is not a shard"):
        read_split(folder)


def test_a_shard_with_another_number_of_samples_than_in_the_manifest_is_noticed(folder: Path) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, entries(shard)[:-3])
    with pytest.raises(UserError, match=r"shard-000001\.tar holds 7 of 8 samples"):
        read_split(folder)


def test_a_shard_without_any_sample_is_noticed(folder: Path) -> None:
    rewrite(folder / "shard-000001.tar", [("README", bytes(40_000))])
    with pytest.raises(UserError, match=r"holds 0 of 8 samples"):
        read_split(folder)


@pytest.mark.parametrize("key", ["abc", "9" * 30, "1_0", "+10", " 10"])
def test_a_key_that_is_no_number_or_too_large_is_noticed(folder: Path, key: str) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, [(name.replace("00000010", key), data) for name, data in entries(shard)])
    with pytest.raises(UserError, match=r"sample .* of .*shard-000001\.tar cannot be decoded"):
        read_split(folder)


@pytest.mark.parametrize("label", [b"", b"1.5", b"9" * 30, b"-1", b"3", b"1_0", b" 1", b"\xd9\xa1"])
def test_a_label_that_is_none_of_the_classes_is_noticed(folder: Path, label: bytes) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, [(name, label if name.endswith("10.cls") else data) for name, data in entries(shard)])
    with pytest.raises(UserError, match=r"sample .* of .*shard-000001\.tar cannot be decoded"):
        read_split(folder)


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b"[]", b'{"a": "\\ud800"}', b'{"a": "\xed\xa0\x80"}'],
    ids=["deep", "list", "half", "bytes"],
)
def test_a_json_that_could_not_be_handed_on_is_noticed(folder: Path, text: bytes) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, [(name, text if name == "00000010.json" else data) for name, data in entries(shard)])
    with pytest.raises(UserError, match=r"sample 00000010 of .*shard-000001\.tar cannot be decoded"):
        read_split(folder)


def test_two_samples_with_one_key_are_noticed(folder: Path) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, [(name.replace("00000010", "00000000"), data) for name, data in entries(shard)])
    with pytest.raises(UserError, match=r"two samples of .*split have the same key"):
        read_split(folder)
    rewrite(shard, [(name.replace("00000000", "11"), data) for name, data in entries(shard)])
    with pytest.raises(UserError, match="another sample has this key"):
        read_split(folder)


def test_a_repeated_file_is_noticed(folder: Path) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, [*entries(shard), entries(shard)[0]])
    with pytest.raises(UserError, match=r"is not a shard \(00000008\.cls occurs twice\)"):
        read_split(folder)


def test_labels_that_are_not_those_of_the_manifest_are_noticed(folder: Path) -> None:
    shard = folder / "shard-000001.tar"
    rewrite(shard, [(name, b"2" if name == "00000009.cls" else data) for name, data in entries(shard)])
    with pytest.raises(UserError, match="differ from the counts in its manifest"):
        read_split(folder)


@pytest.mark.parametrize("info", [{}, {"poisoned": 1}, {"poisoned": None}])
def test_a_missing_flag_does_not_count_as_false(tmp_path: Path, info: dict[str, object]) -> None:
    (tmp_path / "flagged").mkdir()
    write_shards(tmp_path / "flagged", [Sample(0, np.zeros((16, 16, 3), dtype=np.uint8), 0, info)], description())
    with pytest.raises(UserError, match="neither true nor false for 'poisoned'"):
        read_split(tmp_path / "flagged").flags("poisoned")


def test_a_bomb_in_a_shard_is_not_inflated(folder: Path) -> None:
    shard = folder / "shard-000001.tar"
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    bomb = png_of((b"IHDR", header), (b"IDAT", zlib.compress(bytes(2**25))), (b"IEND", b""))
    rewrite(shard, [(name, bomb if name == "00000010.png" else data) for name, data in entries(shard)])
    tracemalloc.start()
    with pytest.raises(UserError, match=r"sample 00000010 .*pixel data are not 784 bytes"):
        read_split(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_files_that_are_not_ours_are_passed_over(folder: Path, images: tuple[Tensor, Tensor]) -> None:
    shard = folder / "shard-000001.tar"
    files = entries(shard)
    strange = [("README", b"x"), ("00000010.txt", b"y" * 700), ("notes.md", b""), ("00000010.seg.png", b"z")]
    rewrite(shard, [strange[0], *files[:7], *strange[1:], *files[7:]])
    split = read_split(folder)
    assert torch.equal(split.images, images[0])
    assert torch.equal(split.labels, images[1])


def test_an_image_of_another_size_is_noticed(folder: Path) -> None:
    small = png.encode(np.zeros((8, 8, 3), dtype=np.uint8))
    shard = folder / "shard-000001.tar"
    rewrite(shard, [(name, small if name == "00000010.png" else data) for name, data in entries(shard)])
    with pytest.raises(UserError, match=r"sample 00000010 .*8x8 pixels, not 16"):
        read_split(folder)


def test_any_content_of_a_shard_is_read_or_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "split", *synthetic(3, side=4))
    shard = tmp_path / "split/shard-000000.tar"
    whole = shard.read_bytes()
    used = [place for place, byte in enumerate(whole) if byte]
    random, results = np.random.RandomState(1), []
    for _ in range(400):
        data = bytearray(whole[: random.randint(1, len(whole))] if random.rand() < 0.1 else whole)
        for place in random.choice(used, 3):
            if place < len(data):
                data[place] = random.choice([0, 1, 45, 57, 255, data[place] ^ 1])
        shard.write_bytes(data)
        entry = manifest.Shard(name=shard.name, samples=3, sha256=sha256_of(shard))
        try:
            results.append(len(read_shard(shard.parent, entry, description(side=4)).keys))
        except UserError as error:
            assert str(shard) in str(error)  # noqa: PT017
            results.append(0)
    assert set(results) == {0, 3}


class _Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, crater: Path) -> None:
        self._crater = crater

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._crater),)


@pytest.mark.parametrize("ending", ["pyd", "pkl", "pickle", "pth", "png.pkl", "npy"])
def test_a_pickle_in_a_shard_is_never_opened(folder: Path, tmp_path: Path, ending: str) -> None:
    bomb = pickle.dumps(_Bomb(tmp_path / "crater"))
    shard = folder / "shard-000000.tar"
    files = entries(shard)
    rewrite(shard, [*files[:3], (f"00000000.{ending}", bomb), *files[3:]])
    assert read_split(folder).keys.tolist() == list(range(20))
    assert not (tmp_path / "crater").exists()
    pickle.loads(bomb)
    assert (tmp_path / "crater").exists()


def test_a_pickle_in_the_place_of_an_image_is_never_opened(folder: Path, tmp_path: Path) -> None:
    bomb = pickle.dumps(_Bomb(tmp_path / "crater"))
    shard = folder / "shard-000000.tar"
    rewrite(shard, [(name, bomb if name == "00000000.png" else data) for name, data in entries(shard)])
    with pytest.raises(UserError, match="sample 00000000"):
        read_split(folder)
    assert not (tmp_path / "crater").exists()
