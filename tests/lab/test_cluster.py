"""A list of runs on a cluster of two nodes, of which some are lost on the way."""

from __future__ import annotations

import builtins
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import clustered
from clustered import LISTED, NODE, WAITS, once_tried, tried
from refine.core import starter
from refine.core.errors import UserError
from refine_lab.cluster import compute as cluster
from refine_lab.cluster import connection, nodes, submitted
from refine_lab.cluster.connection import Cluster
from refine_lab.lists import clones, compute
from refine_lab.lists.rows import Row, Rows
from refine_lab.runs.recorded import HOME, read_all
from repositories import ok
from support import PROJECT, environment

NAMES = [f"folder-quick-{attack}-refine-clustered-s1" for attack in clustered.ATTACKS]


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """Two nodes of a processor each, which ask for a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setattr(builtins, "print", print)  # which Ray replaces for good
        from ray.cluster_utils import Cluster as LocalCluster  # reads these settings once

        small = {"num_cpus": 1, "object_store_memory": 100 << 20}
        made = LocalCluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
        made.add_node(**small)
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        made.shutdown()


@pytest.fixture
def faked(preset: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose runs on the cluster compute nothing."""
    del ray_cluster
    for name in ("make_parts", "compute_run", "known"):
        monkeypatch.setattr(submitted, name, getattr(submitted, name))
    clustered.with_fakes()
    return preset


def _compute(project: Path, rows: Rows = LISTED, **options: Any) -> None:
    cluster.compute(rows, [], commit=False, project=project, cluster=Cluster(), **options)


def _recorded(project: Path) -> list[str]:
    return sorted(path.name for path in (project / HOME).glob("*/")) if (project / HOME).is_dir() else []


CLEAN = Row(attack="none", defense="shrinkpad")
TOGETHER = [CLEAN, Row(attack="badnets", variant="plain", machine={"REFINE_THREADS": 1})]
APART = [CLEAN, Row(attack="badnets", defense="shrinkpad")]


def _content(project: Path) -> dict[str, Any]:
    """All that was recorded, but for what tells when and where."""
    found = {}
    for name, run in read_all(project / HOME).items():
        record = run.record.model_dump()
        del record["runtime"], record["commit"]
        found[name] = (record, run.figures, run.diagnostics)
    return found


@pytest.mark.parametrize("apart", [False, True])
def test_real_runs_come_home_as_they_would_be_here(
    preset: Path, ray_cluster: Any, tmp_path: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    del ray_cluster
    rows = Rows(preset="quick", rows=APART if apart else TOGETHER)
    where = Cluster(home=tmp_path / "node", apart=True) if apart else Cluster()
    cluster.compute(rows, [], commit=True, project=preset, cluster=where)
    assert ok(preset, "git", "status", "--porcelain", "metrics", "params.yaml") == ""
    there = _content(preset)
    assert len(there) == len(rows.rows)
    assert ok(preset, "git", "log", "--format=%s").count("Record folder-quick-") == len(there)
    for record, _, _ in there.values():
        assert record["name"]["attack"] == "none" or record["clean"]["run"] == record["retuning"]["clean_run"] != ""
    ok(preset, "git", "rm", "-qr", str(HOME))
    ok(preset, "git", "commit", "-qm", "again, here")
    for name in ("REFINE_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # as on a node
    compute.compute(rows, [], commit=False, project=preset)
    assert _content(preset) == there


KILLS_THE_WORKER = """
import os, sys, time

def lose(event, arguments):
    if event != "open" or "/train-refine-" not in str(arguments[0]):
        return
    if "epoch-000001.ckpt" in str(arguments[0]):
        os.close(os.open(f".scratch/began-{os.getpid()}", os.O_CREAT))
    if "epoch-000003.ckpt" not in str(arguments[0]):
        return
    try:
        os.close(os.open(".scratch/lost", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    import psutil
    os.kill(next(each.pid for each in psutil.Process().parents() if each.name().startswith("ray::")), 9)
    time.sleep(600)

sys.addaudithook(lose)
"""
"""A stage kills the worker that it computes for, in the third epoch of the first try, and does not end by itself."""


def test_a_training_whose_worker_is_killed_ends_and_goes_on_in_another(preset: Path, ray_cluster: Any) -> None:
    del ray_cluster
    (preset / "src/sitecustomize.py").write_text(KILLS_THE_WORKER, encoding="utf-8")
    ok(preset, "git", "add", "-A")
    ok(preset, "git", "commit", "-qm", "lose a worker")
    row = Row(attack="badnets", variant="longer", changes={"train_refine.recipe.epochs": 4})
    cluster.compute(Rows(preset="quick", rows=[row]), [], commit=False, project=preset, cluster=Cluster())
    assert (preset / ".scratch/lost").exists()
    assert len(list((preset / ".scratch").glob("began-*"))) == 1  # the second try went on
    assert len(read_all(preset / HOME)) == 1
    assert not [each for each in psutil.process_iter() if _works_in(each, preset)]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return "stages/" in " ".join(process.cmdline()) and Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:
        return False


def test_a_run_whose_worker_is_killed_is_tried_again(faked: Path) -> None:
    (faked / WAITS).write_text("badnets", encoding="utf-8")
    with once_tried(faked, "badnets", lambda pid: os.kill(pid, signal.SIGKILL)):
        _compute(faked)
    assert _recorded(faked) == NAMES
    assert [len(tried(faked, attack)) for attack in clustered.ATTACKS] == [2, 1, 1]


def test_a_run_whose_node_is_lost_goes_on_elsewhere(faked: Path, ray_cluster: Any) -> None:
    node = ray_cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    (faked / NODE).write_text(node.node_id, encoding="utf-8")
    (faked / WAITS).write_text("badnets", encoding="utf-8")
    apart = Cluster(home=faked, apart=True)
    with once_tried(faked, "badnets", lambda _: ray_cluster.remove_node(node, allow_graceful=False)):
        cluster.compute(LISTED, ["badnets"], commit=False, project=faked, cluster=apart)
    assert _recorded(faked) == NAMES[:1]
    assert len(tried(faked, "badnets")) == 2


def test_a_list_whose_process_is_killed_goes_on_with_what_is_left(faked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refine_lab.lists.plan.refuse_other", lambda *_: None)  # which would read what was recorded
    (faked / WAITS).write_text("none", encoding="utf-8")
    paths = os.pathsep.join(str(PROJECT / name) for name in ("tests", "src", "lab"))
    command = [sys.executable, str(PROJECT / "tests/clustered.py"), str(faked)]
    with subprocess.Popen(command, env=environment(PYTHONPATH=paths), cwd=faked) as driver:
        while not (tried(faked, "none") and len(_recorded(faked)) == 2):
            assert driver.poll() is None
            time.sleep(0.05)
        driver.kill()
    assert _recorded(faked) == NAMES[:2]
    _compute(faked)
    assert _recorded(faked) == NAMES
    assert [len(tried(faked, attack)) for attack in clustered.ATTACKS] == [1, 1, 2]


def test_a_classifier_that_cannot_be_made_fails_its_runs_alone(faked: Path, caplog: pytest.LogCaptureFixture) -> None:
    (faked / "fails").touch()
    with pytest.raises(UserError, match=f"1 of 3 rows failed, each for the reason given above: {NAMES[1]}"):
        _compute(faked)
    assert f"{NAMES[1]} failed: no luck with this one" in caplog.messages
    assert _recorded(faked) == [NAMES[0], NAMES[2]]
    assert tried(faked, "blended") == []


def test_a_run_that_another_list_computes_is_passed_over(faked: Path) -> None:
    with clones.lock(faked, NAMES[0]):
        _compute(faked)
    assert _recorded(faked) == NAMES[1:]


def test_a_cluster_without_token_or_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(UserError, match="set RAY_AUTH_MODE=token here and on all nodes"):
        connection.started()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    import ray

    def away(**_settings: Any) -> None:
        raise ConnectionError("nobody is there\nat all")

    monkeypatch.setattr(ray, "init", away)
    with pytest.raises(UserError, match=r"the cluster at RAY_ADDRESS=127.0.0.1:1 does not answer \(nobody is there\)"):
        connection.started()


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"cpus": 9}, "--cpus 9 is more than any node has, which is 8 at most"),
        ({"gpus": 3.0}, "--gpus 3 is more than any node has, which is 2 at most"),
        ({"gpus": 1.5}, "--gpus 1.5 is neither a share of one GPU nor a whole number"),
        ({"home": Path("here")}, "--home here is another folder on each node"),
    ],
)
def test_what_no_node_can_give_is_refused(wanted: dict[str, Any], told: str) -> None:
    alive = [{"Alive": True, "Resources": {"CPU": 8.0}}, {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 2.0}}]
    nodes_of = SimpleNamespace(nodes=lambda: [*alive, {"Alive": False, "Resources": {"CPU": 64.0}}])
    with pytest.raises(UserError, match=told):
        connection.refuse_too_much(nodes_of, Cluster(**wanted))
    connection.refuse_too_much(nodes_of, Cluster(cpus=8, gpus=0.5, home=Path("/here")))


def test_a_run_that_asks_for_no_gpu_sees_none(preset: Path) -> None:
    assert cluster._place(preset, Cluster(cpus=2)).environment["CUDA_VISIBLE_DEVICES"] == ""
    assert cluster._place(preset, Cluster(cpus=2)).environment["REFINE_THREADS"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in cluster._place(preset, Cluster(gpus=1)).environment


def test_a_run_that_cannot_be_written_fails_alone(
    faked: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = cluster._home

    def full(project: Path, name: Any, result: Any) -> Path:
        if "badnets" in str(name):
            raise OSError(28, "No space left on device")
        return plain(project, name, result)

    monkeypatch.setattr(cluster, "_home", full)
    with pytest.raises(UserError, match=f"1 of 3 rows failed, each for the reason given above: {NAMES[0]}"):
        _compute(faked)
    assert _recorded(faked) == NAMES[1:]
    assert any("No space left" in message for message in caplog.messages)


def test_a_task_waits_for_what_a_lost_one_left_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_PATIENCE", 0.1)
    (own,) = starter.mark().values()
    number, start = own.split()
    for mark, waits in ((own, False), (f"{number} {float(start) - 500:.2f}", True)):
        command = ["sleep", "600"]
        with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, starter.NAME: mark}) as left:
            while left.poll() is None and clustered_environment(left.pid) != mark:
                time.sleep(0.01)
            if waits:
                with pytest.raises(UserError, match=f"process {left.pid} of a lost run does not end"):
                    nodes._wait_for_orphans(tmp_path)
            else:
                nodes._wait_for_orphans(tmp_path)
            left.kill()
    nodes._wait_for_orphans(tmp_path)


def clustered_environment(pid: int) -> str | None:
    """The mark that a process has; None until it has become the program that was asked for."""
    import psutil

    process = psutil.Process(pid)
    return process.environ().get(starter.NAME) if process.name() == "sleep" else None
