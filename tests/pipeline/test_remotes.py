"""Data and models are shared by a bucket, and shards in one go through the pipeline, as the pages about them say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import servers
from buckets import BUCKET, Bucket, bucket, shard
from repositories import ok, ran
from support import run, write_params
from tiny import files_of


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, which programs find by their environment."""
    with bucket(monkeypatch) as made:
        yield made


def _remote(repo: Path, url: str, **settings: str) -> None:
    ok(repo, "dvc", "remote", "add", "-d", "team", url)
    for name, value in settings.items():
        ok(repo, "dvc", "remote", "modify", "team", name, value)
    ok(repo, "git", "commit", "-qam", "a remote")


def _pulled(repo: Path) -> None:
    """A clone has everything, and runs nothing."""
    ok(repo.parent, "git", "clone", "-q", str(repo), "clone")
    clone = repo.parent / "clone"
    ok(clone, "dvc", "pull", "-q")
    assert ran(clone) == []
    for folder in ("data/raw", "data/poisoned", "models"):
        assert files_of(clone / folder) == files_of(repo / folder)


def _refused(repo: Path, *command: str) -> str:
    """What is printed of an error, which has no traceback."""
    ended = run(repo, "dvc", *command)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


def test_a_clone_takes_everything_from_the_bucket_and_runs_nothing(repo: Path, store: Bucket) -> None:
    _remote(repo, f"s3://{BUCKET}/refine")
    ok(repo, "dvc", "push", "-q")
    _pulled(repo)
    del store.asked[:]
    ok(repo, "dvc", "push", "-q")
    assert not [method for method, _ in store.asked if method == "PUT"]


def test_a_clone_takes_everything_by_ssh_though_the_first_push_broke_off(repo: Path, tmp_path: Path) -> None:
    with servers.ssh(tmp_path / "server") as server:
        server.cut_after = 3
        _remote(repo, server.url, keyfile=str(server.key), verify="true")
        assert "failed to transfer" in _refused(repo, "push")
        assert server.cut_after is None
        there = list((tmp_path / "server/remote").glob("files/md5/??/*"))
        assert there
        for path in there:
            name = path.parent.name + path.name.removesuffix(".dir")
            assert path.suffix == ".tmp" or hashlib.md5(path.read_bytes()).hexdigest() == name
        ok(repo, "dvc", "push", "-q")
        _pulled(repo)


def test_a_key_that_the_server_does_not_know_is_told_without_a_traceback(repo: Path, tmp_path: Path) -> None:
    with servers.ssh(tmp_path / "server") as server, servers.ssh(tmp_path / "other") as other:
        _remote(repo, server.url, keyfile=str(other.key))
        assert "ermission denied" in _refused(repo, "push")
        assert not list((tmp_path / "server/remote").iterdir())


def test_what_was_changed_on_the_server_is_not_taken(repo: Path, tmp_path: Path) -> None:
    with servers.ssh(tmp_path / "server") as server:
        _remote(repo, server.url, keyfile=str(server.key), verify="true")
        ok(repo, "dvc", "push", "-q")
        for path in (tmp_path / "server/remote").rglob("*"):
            if path.is_file() and path.stat().st_size > 10_000:
                path.write_bytes(path.read_bytes()[:-1] + b"?")
        ok(repo.parent, "git", "clone", "-q", str(repo), "clone")
        clone = repo.parent / "clone"
        _refused(clone, "pull")
        whole = files_of(repo / "data/raw")
        got = files_of(clone / "data/raw") if (clone / "data/raw").is_dir() else {}
        assert all(whole[name] == content for name, content in got.items())
        ok(clone, "dvc", "remote", "modify", "team", "verify", "false")
        ok(clone, "dvc", "pull", "-q")
        assert files_of(clone / "data/raw") != whole


def test_a_clone_takes_everything_by_webdav(repo: Path, tmp_path: Path) -> None:
    with servers.webdav(tmp_path / "server") as url:
        _remote(repo, f"{url}team")
        assert "could not be found" in _refused(repo, "push")
        (tmp_path / "server/remote/team").mkdir()
        ok(repo, "dvc", "push", "-q")
        _pulled(repo)


def test_a_bucket_that_is_missing_is_told_without_a_traceback(repo: Path, store: Bucket) -> None:
    ok(repo, "dvc", "remote", "add", "-d", "team", "s3://nowhere/refine")
    assert "bucket" in _refused(repo, "push")


def test_a_wrong_credential_and_a_push_that_is_refused_midway_are_told(repo: Path, store: Bucket) -> None:
    _remote(repo, f"s3://{BUCKET}/refine")
    store.refuses = True
    assert "Forbidden" in _refused(repo, "push")
    store.refuses, store.allowed = False, 5
    assert "failed to" in _refused(repo, "push")
    store.allowed = None
    ok(repo, "dvc", "push", "-q")
    _pulled(repo)


def test_the_pipeline_runs_on_shards_in_a_bucket(repo: Path, store: Bucket) -> None:
    for number in range(6):
        store.put(f"part-{number:03d}.tar", shard(8 * number, 8))
    _reads(repo, f"s3://{BUCKET}")
    stages = ran(repo)
    assert stages == ["download", "poison-dataset", "train-backdoor", "train-refine", "evaluate"]
    assert sorted(store.fetched) == [f"part-{number:03d}.tar" for number in range(6)]
    assert not list((repo / "data/raw").rglob("*.tar"))
    assert len(list((repo / "data/.cache/shards").iterdir())) == 6
    assert ran(repo) == []


def _reads(repo: Path, where: str) -> None:
    """The data set is six shards there, of which four are for training."""
    content = yaml.safe_load((repo / "params.yaml").read_text(encoding="utf-8"))
    content["download"] = {"source": "webdataset"}
    addresses = {"train": f"{where}/part-{{000..003}}.tar", "test": f"{where}/part-{{004..005}}.tar"}
    content["sources"] = {"webdataset": {**addresses, "side": 16}}
    write_params(repo, content)


def test_shards_that_dvc_imports_are_indexed_anew_when_they_change(repo: Path, store: Bucket) -> None:
    for number in range(6):
        store.put(f"lake/part-{number:03d}.tar", shard(8 * number, 8))
    ok(repo, "dvc", "import-url", "-q", f"s3://{BUCKET}/lake", "data/own/images/shards")
    _reads(repo, "data/own/images/shards")
    assert ran(repo, "download") == ["download"]
    assert ran(repo, "download") == []
    before = (repo / "data/raw/train/manifest.json").read_text(encoding="utf-8")
    store.put("lake/part-001.tar", shard(100, 8))
    assert ran(repo, "download") == []
    ok(repo, "dvc", "update", "-q", "data/own/images/shards.dvc")
    assert ran(repo, "download") == ["download"]
    assert (repo / "data/raw/train/manifest.json").read_text(encoding="utf-8") != before
    assert not list((repo / "data/raw").rglob("*.tar"))
