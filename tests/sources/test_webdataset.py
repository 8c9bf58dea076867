"""Shards of strangers are indexed where they are, on this disk or in a bucket, and then read as any others."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from buckets import BUCKET, Bucket, bucket, on_disk, photo, shard
from refine.core.errors import UserError
from refine.core.files import read_json, write_json
from refine.core.machine import DEFAULTS, Machine
from refine.download.indexing import write_indexes
from refine.download.source import Source
from refine.poisoning.poison import Outputs, open_clean, poison_dataset
from refine.shards.format import elsewhere
from refine.shards.format.index import LABELS, Index
from refine.shards.format.manifest import NAME
from refine.shards.format.preparation import Preparation, read
from refine.shards.materialize import materialize
from refine.shards.reading.folder import complete, described
from refine.shards.reading.reader import Shards, loaded, read_split
from refine.shards.reading.stored import open_split
from refine.sources.webdataset import Params, open_source
from tiny import attack, files_of

SIDE = 16
SQUARE = Preparation(resize=SIDE, crop=SIDE)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(autouse=True)
def _in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/own/images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket with five shards of six photos."""
    with bucket(monkeypatch) as made:
        for number in range(5):
            made.put(f"part-{number:03d}.tar", shard(6 * number, 6))
        yield made


def _index(train: Any, test: Any, machine: Machine = DEFAULTS, **settings: Any) -> int:
    params = Params.model_validate({"train": train, "test": test, "side": SIDE, **settings})
    found = open_source(params, Source(None, Path("data/own/images"), Path("data/.cache")))
    return write_indexes(found, "webdataset", Path("data/raw/train"), Path("data/raw/test"), machine)


def _local(count: int = 3, **how: Any) -> None:
    for number in range(count):
        on_disk(Path("shards"), f"part-{number:03d}.tar", shard(6 * number, 6, **how))


def _whole(numbers: range, ending: str = "jpg") -> torch.Tensor:
    pixels = [read(Path("x"), SQUARE, photo(number, ending)) for number in numbers]
    return torch.stack([torch.from_numpy(each.copy()).permute(2, 0, 1) for each in pixels])


# -- on this disk


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_shards_are_read_where_they_are(ending: str) -> None:
    _local(ending=ending)
    assert _index("shards/part-{000..001}.tar", ["shards/part-002.tar"]) == 18
    assert sorted(files_of(Path("data/raw/train"))) == [LABELS, NAME]
    split = read_split(Path("data/raw/train"))
    assert torch.equal(split.images, _whole(range(12), ending))
    assert split.keys.tolist() == list(range(12))
    assert split.labels.tolist() == [number % 3 for number in range(12)]
    assert split.infos[1] == {"file": f"photos/{'n' * 100}0001", "json": {"number": 1}}
    assert split.infos[2] == {"file": f"photos/{'n' * 100}0002"}
    assert read_split(Path("data/raw/test")).labels.tolist() == [number % 3 for number in range(12, 18)]
    only = read_split(Path("data/raw/train"), only_images=True)
    assert torch.equal(only.images, split.images)
    assert (len(only.labels), only.infos) == (0, [])


def test_its_manifest_has_sums_counts_and_addresses_and_no_pixels() -> None:
    _local()
    _index("shards/part-{000..001}.tar", "shards/part-002.tar", classes=["a", "b", "c"])
    index = described(Path("data/raw/train"))
    assert isinstance(index, Index)
    assert [shard.address for shard in index.shards] == ["shards/part-000.tar", "shards/part-001.tar"]
    assert index.shards[0].sha256 == hashlib.sha256(Path("shards/part-000.tar").read_bytes()).hexdigest()
    assert (index.counts, index.classes, index.samples_per_shard) == ([4, 4, 4], ["a", "b", "c"], 6)
    assert complete(Path("data/raw/train")).samples == 12
    assert sum(path.stat().st_size for path in Path("data/raw/train").iterdir()) < 5000


def test_an_attack_writes_what_it_changes_and_reads_only_shards_that_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _local(6)
    _index("shards/part-{000..004}.tar", "shards/part-005.tar")
    clean = open_clean(Path("data/raw/train"), Path("data/raw/test"))
    read_addresses: list[str] = []
    inner = elsewhere.fetched
    monkeypatch.setattr(
        elsewhere, "fetched", lambda address, *rest: (read_addresses.append(address), inner(address, *rest))[1]
    )
    made = attack("badnets", read_split(Path("data/raw/train")), rate=2 / 30)
    del read_addresses[:]
    out = Outputs.below(Path("data/poisoned"))
    record = poison_dataset("badnets", made, 1, clean, out)
    wanted = {f"shards/part-00{row // 6}.tar" for row in record.poisoned}
    assert len(record.poisoned) == 2
    assert set(read_addresses) == wanted | {"shards/part-005.tar"}
    poisoned = read_split(out.train)
    before = read_split(Path("data/raw/train"))
    changed = poisoned.flags("poisoned")
    assert changed.nonzero().flatten().tolist() == record.poisoned
    assert torch.equal(poisoned.images[~changed], before.images[~changed])
    assert poisoned.infos[0] == {
        **before.infos[0],
        "poisoned": 0 in record.poisoned,
        "cover": False,
        "original_label": 0,
        "given_label": 0,
    }


def test_a_copy_as_ordinary_shards_can_be_written() -> None:
    _local(2)
    _index("shards/part-000.tar", "shards/part-001.tar")
    before = read_split(Path("data/raw/train"))
    materialize(Path("data/raw/train"), "copy")
    Path("shards/part-000.tar").unlink()
    after = read_split(Path("copy"))
    assert torch.equal(after.images, before.images)
    assert after.infos == before.infos


def test_photos_without_labels() -> None:
    _local(2, labeled=False)
    _index("shards/part-000.tar", "shards/part-001.tar", labeled=False)
    split = read_split(Path("data/raw/train"))
    assert (split.manifest.labeled, split.manifest.classes, split.labels.tolist()) == (False, [], [0] * 6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": ["a", "b"]}, "its label 2 is not one of 2 classes"),
        (
            {"classes": ["a", "b", "a"]},
            r"sources\.webdataset cannot be used .all of it: two classes have the same name",
        ),
        ({"train": "shards/part-{0..999999999}.tar"}, "sources.webdataset.train names more than 100,000 shards"),
        ({"train": "{ ,a}b.tar"}, "sources.webdataset.train: .* cannot be understood"),
        ({"train": "shards/part-{000..x.tar"}, "sources.webdataset.train: .* cannot be understood"),
        ({"train": "shards/part-009.tar"}, "shards/part-009.tar is missing; bring it there, or correct the address"),
        ({"train": ["shards/part-000.tar", "shards/part-000.tar"]}, "lists shards/part-000.tar twice"),
        ({"train": "ftp://host/part.tar"}, "ftp"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(settings: dict[str, Any], said: str) -> None:
    _local(2)
    with pytest.raises((UserError, ValidationError), match=said):
        _index(**{"train": "shards/part-000.tar", "test": "shards/part-001.tar", **settings})
    assert not list(Path("data").glob("raw/*"))


@pytest.mark.parametrize(
    "address", ["simplecache::s3://a/b", "file:///etc/passwd", "zip://a.zip::s3://b", "a\nb", "pipe:cat x", " "]
)
def test_an_address_cannot_make_a_library_do_something_else(address: str) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate({"train": address, "test": "b.tar"})


def _tar(*files: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return packed.getvalue()


def _entry(name: str, content: bytes, kind: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.type = len(content), kind
    return header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512) + bytes(1024)


def _sized(size: bytes, broken: bool = False) -> bytes:
    """A folder, and a file whose header says this of its size: on such, tarfile of Python 3.11 can go on for ever."""
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]) + broken)
    return folder.tobuf(tarfile.GNU_FORMAT) + bytes(header) + bytes(1024)


PHOTO = photo(1, "jpg")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nothing", "cannot be used .it is cut off"),
        (b"nothing" * 1000, "cannot be used .it is not a tar archive"),
        (_tar(), "it holds no sample"),
        (_tar(("a.jpg", PHOTO)), r"sample a of .* .it has no file that ends in .cls"),
        (_tar(("a.heic", PHOTO), ("a.cls", b"1")), "sample a of .* .it has 0 images"),
        (_tar(("a.jpg", PHOTO), ("a.cls", b"9" * 18)), "its label 999999999999999999 is not one of 100,000 classes"),
        (_tar(("a.jpg", PHOTO), ("a.cls", b"1"), ("a.json", b"[" * 100_000)), "its JSON is nested too deep"),
        (_tar(("a.jpg", PHOTO), ("a.cls", b"1"), ("a.json", b'"\\ud800"')), "surrogates not allowed"),
        (_tar(("a.jpg", PHOTO), ("a.cls", b"1"), ("a.json", b"NaN")), "not JSON compliant"),
        (_tar(("a.jpg", PHOTO), ("a.cls", b"1"), ("a.json", b"\xff")), "can't decode byte"),
        (_entry("a.jpg", PHOTO, tarfile.LNKTYPE), "a.jpg is a link, not a file"),
        (_entry("a.jpg", PHOTO, tarfile.SYMTYPE), "a.jpg is a link, not a file"),
        (_entry("a.jpg", PHOTO, tarfile.GNUTYPE_SPARSE), "a.jpg is an entry of the kind b'S'"),
        (_entry("a.jpg", PHOTO, tarfile.FIFOTYPE), "a.jpg is an entry of the kind b'6'"),
        (_entry("b\x1b.jpg", PHOTO, tarfile.SYMTYPE), r"b\\x1b\.jpg is a link"),
        (_entry("x", b"9999 path=../../x\n", tarfile.XHDTYPE), "an extended header that is damaged"),
        (_entry("x", b"20 size=99999999999\n", tarfile.XHDTYPE), "a file of 8 GiB or more"),
        (_entry("x", bytes(9000), tarfile.XHDTYPE), "an extended header that is too long"),
        (_sized(b"\xff" * 12), "it is not a tar archive, or holds a file of 8 GiB or more"),
        (_sized(b"77777777777\0"), "it is cut off"),
        (_sized(b"00000000000\0", broken=True), "it is not a tar archive, or is damaged"),
        (_tar(("a.jpg", PHOTO), ("a.cls", b"1"))[: -10_240 + 2 * 512], "it is cut off"),
        (_tar(("a.jpg", PHOTO), ("a.cls", b"one")), "its label b'one' is not a whole number"),
        (_tar(("a.jpg", PHOTO), ("a.cls", b"-1")), "is not a whole number"),
        (_tar(("a.jpg", PHOTO), ("a.png", PHOTO), ("a.cls", b"1")), "it has 2 images"),
        (_tar(("a.cls", b"1")), "it has 0 images"),
        (_tar(("a.jpg", PHOTO), ("a.JPG", PHOTO), ("a.cls", b"1")), "a.JPG occurs twice"),
        (shard(0, 6)[:-12_000], "part-000.tar cannot be used"),
    ],
)
def test_a_shard_that_is_none_is_refused(content: bytes, said: str) -> None:
    _local(2)
    on_disk(Path("shards"), "part-000.tar", content)
    with pytest.raises(UserError, match=said):
        _index("shards/part-000.tar", "shards/part-001.tar")
    assert not list(Path("data").glob("raw/*"))


def test_a_shard_that_was_changed_is_refused_by_its_sum() -> None:
    _local(2)
    _index("shards/part-000.tar", "shards/part-001.tar")
    changed = bytearray(Path("shards/part-000.tar").read_bytes())
    changed[2000] ^= 1
    on_disk(Path("shards"), "part-000.tar", bytes(changed))
    with pytest.raises(UserError, match=r"part-000\.tar is not what was indexed .its sha256.* `dvc repro -f download`"):
        read_split(Path("data/raw/train"))


def test_a_device_in_the_place_of_a_shard_is_not_read() -> None:
    _local(2)
    _index("shards/part-000.tar", "shards/part-001.tar")
    Path("shards/part-000.tar").unlink()
    Path("shards/part-000.tar").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"shards/part-000\.tar is not a file"):
        read_split(Path("data/raw/train"))
    Path("shards/part-000.tar").unlink()
    on_disk(Path("shards"), "part-000.tar", shard(0, 60))
    with pytest.raises(UserError, match=r"shards/part-000\.tar is not what was indexed .\d"):
        read_split(Path("data/raw/train"))


def test_an_image_that_cannot_be_decoded_is_named() -> None:
    _local(2)
    on_disk(Path("shards"), "part-000.tar", _tar(("a.jpg", PHOTO), ("a.cls", b"1"), ("b.jpg", b"x"), ("b.cls", b"0")))
    _index("shards/part-000.tar", "shards/part-001.tar")
    with pytest.raises(UserError, match=r"part-000\.tar/b cannot be read as an image"):
        read_split(Path("data/raw/train"))
    assert open_split(Path("data/raw/train")).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counts": [3, 2, 2]}, "counts do not match"),
        ({"samples_per_shard": 5}, "shards are larger than samples_per_shard"),
        ({"side": 17}, "side is not that of its preparation"),
        ({"labels_sha256": "0" * 64}, "sha256 differs"),
        ({"classes": ["a", "a", "b"]}, "two classes have the same name"),
        ({"samples_per_shard": 10**6, "counts": [10**6, 0, 0], "shards": None}, "too small for the samples"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    _local(2)
    _index("shards/part-000.tar", "shards/part-001.tar")
    path = Path("data/raw/train") / NAME
    before = read_json(path, "")
    if "shards" in change:
        change = {**change, "shards": [{**before["shards"][0], "samples": 10**6}]}
    write_json(path, {**before, **change})
    with pytest.raises(UserError, match=said):
        read_split(Path("data/raw/train"))


# -- in a bucket


def _cache() -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (Path() / elsewhere.KEPT).glob("*")}


def test_shards_in_a_bucket_are_fetched_once(store: Bucket) -> None:
    _index(f"s3://{BUCKET}/part-{{000..003}}.tar", f"s3://{BUCKET}/part-004.tar")
    assert sorted(store.fetched) == [f"part-00{number}.tar" for number in range(5)]
    del store.asked[:]
    split = read_split(Path("data/raw/train"))
    assert torch.equal(split.images, _whole(range(24)))
    assert store.asked == []
    assert len(_cache()) == 5


def test_workers_fetch_cold_and_warm(store: Bucket) -> None:
    _index(f"s3://{BUCKET}/part-{{000..003}}.tar", f"s3://{BUCKET}/part-004.tar", Machine(cache=0))
    assert _cache() == {}
    for expected in ([f"part-00{number}.tar" for number in range(4)], []):
        del store.asked[:]
        chunks = list(loaded(Shards(Path("data/raw/train")), 2))
        assert torch.equal(torch.cat([chunk.images for chunk in chunks]), _whole(range(24)))
        assert sorted(store.fetched) == expected


def test_the_room_for_what_was_fetched_is_kept_to(store: Bucket) -> None:
    for number in range(5):
        store.put(f"part-{number:03d}.tar", shard(6 * number, 6) + bytes(700_000))
    _index(f"s3://{BUCKET}/part-{{000..003}}.tar", f"s3://{BUCKET}/part-004.tar", Machine(cache=2))
    assert len(_cache()) == 2
    assert sum(_cache().values()) <= 2 << 20
    machine = Machine(cache=2)
    place = complete(Path("data/raw/train")).shards[0]
    read_split(Path("data/raw/train"), machine=machine)
    read_split(Path("data/raw/test"), machine=machine)
    assert place.sha256 not in _cache()
    assert sum(_cache().values()) <= 2 << 20


def test_what_was_damaged_in_the_cache_is_fetched_again(store: Bucket) -> None:
    _index(f"s3://{BUCKET}/part-{{000..003}}.tar", f"s3://{BUCKET}/part-004.tar")
    sha256 = complete(Path("data/raw/train")).shards[2].sha256
    kept = elsewhere.KEPT / sha256
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    del store.asked[:]
    assert torch.equal(read_split(Path("data/raw/train")).images, _whole(range(24)))
    assert store.fetched == ["part-002.tar"]
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == sha256


def test_an_object_that_was_changed_is_refused(store: Bucket) -> None:
    _index(f"s3://{BUCKET}/part-{{000..003}}.tar", f"s3://{BUCKET}/part-004.tar", Machine(cache=0))
    store.put("part-001.tar", shard(90, 6))
    with pytest.raises(UserError, match=r"part-001\.tar is not what was indexed"):
        read_split(Path("data/raw/train"))
    with pytest.raises(UserError, match=r"part-001\.tar is not what was indexed"):
        list(loaded(Shards(Path("data/raw/train")), 2))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://nowhere/part-000.tar", r"s3://nowhere/part-000\.tar cannot be read \(FileNotFoundError: "),
        (f"s3://{BUCKET}/part-900.tar", r"part-900\.tar cannot be read \(FileNotFoundError: "),
        ("gs://bucket/part-000.tar", "addresses with gs:// need the package gcsfs; `pip install gcsfs`"),
    ],
)
def test_what_is_missing_is_told_in_a_sentence(store: Bucket, address: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        _index(address, f"s3://{BUCKET}/part-004.tar")
    assert "\n" not in str(refused.value)
    assert not list(Path("data").glob("raw/*"))


def test_over_http_a_connection_that_breaks_off_is_told(store: Bucket) -> None:
    whole = f"{store.endpoint}/{BUCKET}/part-{{000..003}}.tar"
    assert _index(whole, f"{store.endpoint}/{BUCKET}/part-004.tar", Machine(cache=0)) == 30
    assert torch.equal(read_split(Path("data/raw/train")).images, _whole(range(24)))
    with _breaking() as address, pytest.raises(UserError, match=r"cannot be read .* and run again"):
        elsewhere.fetched(f"{address}/part.tar", DEFAULTS)


class _breaking:  # noqa: N801 (used like a function)
    """A server that promises 1,000 bytes, sends ten and hangs up."""

    def __enter__(self) -> str:
        import threading

        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")
            connection.close()


def test_a_wrong_credential_is_told(store: Bucket) -> None:
    store.refuses = True
    with pytest.raises(
        UserError, match=r"part-000\.tar cannot be read \(PermissionError: .*\); check the address"
    ) as told:
        elsewhere.fetched(f"s3://{BUCKET}/part-000.tar", DEFAULTS)
    assert "\n" not in str(told.value)


def test_a_full_disk_keeps_nothing_and_stops_nothing(
    store: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inner = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if elsewhere.KEPT in self.parents:
            raise OSError(28, os.strerror(28))
        return inner(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with caplog.at_level(logging.WARNING):
        _index(f"s3://{BUCKET}/part-{{000..003}}.tar", f"s3://{BUCKET}/part-004.tar")
    assert "a fetched shard cannot be kept in data/.cache/shards" in caplog.text
    assert "No space left" in caplog.text
    assert _cache() == {}
    assert torch.equal(read_split(Path("data/raw/train")).images, _whole(range(24)))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_names_of_any_length_are_read_in_every_form_of_tar(form: int) -> None:
    _local(2)
    keys = ["short", "folder/" + "x" * 90, *(["ä" * 120, "deep/" * 40 + "x"] if form != tarfile.USTAR_FORMAT else [])]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in [file for key in keys for file in ((f"{key}.JPG", PHOTO), (f"{key}.cls", b" 1\n"))]:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    on_disk(Path("shards"), "part-000.tar", packed.getvalue())
    _index("shards/part-000.tar", "shards/part-001.tar")
    assert [info["file"] for info in read_split(Path("data/raw/train")).infos] == keys


def test_the_json_of_a_stranger_is_kept() -> None:
    _local(2)
    files = ("a.jpg", PHOTO), ("a.cls", b"1"), ("a.json", json.dumps("ä").encode())
    on_disk(Path("shards"), "part-000.tar", _tar(*files))
    _index("shards/part-000.tar", "shards/part-001.tar")
    assert read_split(Path("data/raw/train")).infos == [{"file": "a", "json": "ä"}]
