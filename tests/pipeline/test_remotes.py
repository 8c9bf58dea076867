"""Data and models are shared by a bucket, and shards in one go through the pipeline, as the pages about them say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from buckets import BUCKET, Bucket, bucket, shard
from repositories import ok, ran
from support import run, write_params
from tiny import files_of


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, which programs find by their environment."""
    with bucket(monkeypatch) as made:
        yield made


def test_a_clone_takes_everything_from_the_bucket_and_runs_nothing(repo: Path, tmp_path: Path, store: Bucket) -> None:
    ok(repo, "dvc", "remote", "add", "-d", "team", f"s3://{BUCKET}/refine")
    ok(repo, "dvc", "push", "-q")
    ok(repo, "git", "commit", "-qam", "a remote")
    ok(tmp_path, "git", "clone", "-q", str(repo), "clone")
    clone = tmp_path / "clone"
    ok(clone, "dvc", "pull", "-q")
    assert ran(clone) == []
    for folder in ("data/raw", "data/poisoned", "models"):
        assert files_of(clone / folder) == files_of(repo / folder)
    del store.asked[:]
    ok(repo, "dvc", "push", "-q")
    assert not [method for method, _ in store.asked if method == "PUT"]


def test_a_bucket_that_is_missing_is_told_without_a_traceback(repo: Path, store: Bucket) -> None:
    ok(repo, "dvc", "remote", "add", "-d", "team", "s3://nowhere/refine")
    ended = run(repo, "dvc", "push")
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert "bucket" in ended.stderr


def test_the_pipeline_runs_on_shards_in_a_bucket(repo: Path, store: Bucket) -> None:
    for number in range(6):
        store.put(f"part-{number:03d}.tar", shard(8 * number, 8))
    content = yaml.safe_load((repo / "params.yaml").read_text(encoding="utf-8"))
    content["download"] = {"source": "webdataset"}
    addresses = {"train": f"s3://{BUCKET}/part-{{000..003}}.tar", "test": f"s3://{BUCKET}/part-{{004..005}}.tar"}
    content["sources"] = {"webdataset": {**addresses, "side": 16}}
    write_params(repo, content)
    stages = ran(repo)
    assert stages == ["download", "poison-dataset", "train-backdoor", "train-refine", "evaluate"]
    assert sorted(store.fetched) == [f"part-{number:03d}.tar" for number in range(6)]
    assert not list((repo / "data/raw").rglob("*.tar"))
    assert len(list((repo / "data/.cache/shards").iterdir())) == 6
    assert ran(repo) == []
