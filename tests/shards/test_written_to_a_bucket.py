"""Shards that `refine materialize` writes to a bucket."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from buckets import BUCKET, Bucket, bucket
from commands import refine
from refine.core.errors import UserError
from refine.core.files import read_json
from refine.core.machine import DEFAULTS
from refine.download.indexing import write_indexes
from refine.download.source import Source
from refine.shards.format import elsewhere, network
from refine.shards.format.elsewhere import Expected
from refine.shards.format.manifest import NAME
from refine.shards.materialize import materialize
from refine.shards.reading.reader import read_split
from refine.sources import webdataset
from support import synthetic, write_split

OUT = f"s3://{BUCKET}/deep/copy"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket."""
    with bucket(monkeypatch) as made:
        yield made


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in."""
    (tmp_path / "project/data/own/images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards."""
    write_split(tmp_path / "raw", *synthetic(20, 16, 3), samples_per_shard=8)
    return tmp_path / "raw"


def _there(store: Bucket) -> list[str]:
    return [each["Key"] for each in store.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def test_it_is_what_a_folder_would_hold(
    store: Bucket, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = refine(capsys, "materialize", str(folder), f"{OUT}/")
    assert (ended.status, ended.out) == (0, f"{OUT}/ holds 20 samples in 3 shards\n")
    materialize(folder, str(tmp_path / "here"))
    assert _there(store) == sorted(f"deep/copy/{path.name}" for path in (tmp_path / "here").iterdir())
    for path in (tmp_path / "here").iterdir():
        assert elsewhere.fetched(f"{OUT}/{path.name}", DEFAULTS) == path.read_bytes()
    for shard in read_json(tmp_path / "here" / NAME, "")["shards"]:
        size = (tmp_path / "here" / shard["name"]).stat().st_size
        assert elsewhere.content(f"{OUT}/{shard['name']}", Expected(size, shard["sha256"]), DEFAULTS)
    assert torch.equal(read_split(tmp_path / "here").images, read_split(folder).images)


def test_the_manifest_comes_last(store: Bucket, folder: Path) -> None:
    materialize(folder, OUT)
    put = [path.rpartition("/")[2] for method, path in store.asked if method == "PUT" and "deep" in path]
    assert put == [*(f"shard-00000{number}.tar" for number in range(3)), NAME]


def test_nothing_is_written_over(store: Bucket, folder: Path) -> None:
    store.put("deep/copy/shard-000009.tar", b"of somebody")
    with pytest.raises(UserError, match="is there already; name another address, or remove what is there"):
        materialize(folder, OUT)
    assert _there(store) == ["deep/copy/shard-000009.tar"]
    materialize(folder, f"s3://{BUCKET}/deep/cop")
    assert len(_there(store)) == 5


@pytest.mark.parametrize("address", [f"s3://{BUCKET}", f"s3://{BUCKET}/marked"])
def test_an_empty_bucket_or_folder_is_written_to(store: Bucket, folder: Path, address: str) -> None:
    if address.endswith("marked"):
        store.put("marked/", b"")
    assert materialize(folder, address).samples == 20
    assert len([name for name in _there(store) if not name.endswith("/")]) == 4


def test_a_permission_that_ends_midway_leaves_nothing(store: Bucket, folder: Path) -> None:
    store.allowed = 2
    with pytest.raises(
        UserError, match=r"shard-000002\.tar cannot be written \(PermissionError: .*and run again$"
    ) as no:
        materialize(folder, OUT)
    assert "\n" not in str(no.value)
    assert _there(store) == []


def test_a_damaged_shard_leaves_nothing(store: Bucket, folder: Path) -> None:
    (folder / "shard-000002.tar").write_bytes(bytes((folder / "shard-000002.tar").stat().st_size))
    with pytest.raises(UserError, match=r"shard-000002\.tar is damaged"):
        materialize(folder, OUT)
    assert [path for method, path in store.asked if method == "PUT"][-1].endswith("shard-000001.tar")
    assert _there(store) == []


class _Breaking:
    """A file system whose next `breaks` writes and removals fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.breaks, inner = 0, network._system

        def system(address: str) -> tuple[Any, str]:
            self._system, path = inner(address)
            return self, path

        monkeypatch.setattr(network, "_system", system)
        monkeypatch.setattr(network.time, "sleep", lambda _: None)

    def __getattr__(self, name: str) -> Any:
        if name in ("_pipe_file", "rm_file") and self.breaks:
            self.breaks -= 1
            raise ConnectionResetError("reset by peer")
        return getattr(self._system, name)


def test_a_connection_that_breaks_is_tried_again(store: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = _Breaking(monkeypatch)
    connection.breaks = 2
    assert materialize(folder, OUT).samples == 20
    connection.breaks = 3
    with pytest.raises(UserError, match=r"shard-000000\.tar cannot be written \(ConnectionResetError: reset by peer\)"):
        materialize(folder, f"{OUT}2")
    assert not any(name.startswith("deep/copy2") for name in _there(store))


def test_what_cannot_be_removed_is_told(
    store: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connection = _Breaking(monkeypatch)

    def end() -> None:
        with network.new_prefix(OUT) as put:
            put("one", b"1")
            connection.breaks = 1000
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        end()
    assert _there(store) == ["deep/copy/one"]
    assert f"{OUT} holds up to 1 files of what was not finished, which could not be removed" in caplog.text


def test_an_interruption_waits_for_the_file_that_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def result(self) -> None:
            raise KeyboardInterrupt

    async def write(_path: str, _content: bytes) -> None: ...

    def begin(work: Coroutine[Any, Any, None], _loop: Any) -> Interrupted:
        work.close()
        return interrupted

    waited: list[Any] = []
    interrupted = Interrupted()
    monkeypatch.setattr(network.asyncio, "run_coroutine_threadsafe", begin)
    monkeypatch.setattr(network, "wait", waited.append)
    with pytest.raises(KeyboardInterrupt):
        network._write(SimpleNamespace(async_impl=True, loop=None, _pipe_file=write), "path", b"content")
    assert waited == [[interrupted]]


def test_what_was_written_is_a_data_set_for_others(store: Bucket, folder: Path, project: Path) -> None:
    materialize(folder, OUT)
    del store
    source = Source(None, own_images=Path("data/own/images"), cache=Path("data/.cache"))
    addresses = {"train": f"{OUT}/shard-{{000000..000001}}.tar", "test": f"{OUT}/shard-000002.tar"}
    found = webdataset.open_source(webdataset.Params(**addresses, side=16, classes=["a", "b", "c"]), source)
    write_indexes(found, "webdataset", project / "train", project / "test", DEFAULTS)
    before, after = read_split(folder), read_split(project / "train")
    assert torch.equal(after.images, before.images[:16])
    assert torch.equal(after.labels, before.labels[:16])
    assert after.manifest.classes == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "https://example.org/copy",
            "cannot be written to; name a folder, or an address that begins with one of az://",
        ),
        ("ftp://example.org/copy", "cannot be written to; name a folder"),
        ("s3://one::file://two", "and has no other colon"),
        ("gs://bucket/copy", "addresses with gs:// need the package gcsfs; `pip install gcsfs`"),
        ("s3://nowhere/copy", r"s3://nowhere/copy/shard-000000\.tar cannot be written \(FileNotFoundError: "),
    ],
)
def test_where_nothing_can_be_written_is_told(store: Bucket, folder: Path, address: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        materialize(folder, address)
    assert "\n" not in str(refused.value)
    assert _there(store) == []
