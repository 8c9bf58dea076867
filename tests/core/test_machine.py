"""Settings of the machine: defaults, right values, and a sentence for everything else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from refine.core.errors import UserError
from refine.core.machine import NAMES, Machine, machine
from support import PROJECT


def test_nothing_set_gives_the_defaults() -> None:
    assert machine({}) == Machine(device="auto", threads=None, workers=2, memory=4096, processes=1, mirror=None)


def test_an_empty_value_is_the_same_as_none() -> None:
    assert machine(dict.fromkeys(NAMES, "")) == machine({})


def test_all_settings_are_read() -> None:
    given = {"DEVICE": "cuda:1", "THREADS": "4", "WORKERS": "3", "MEMORY": "5", "PROCESSES": "6", "MIRROR": "/mirror"}
    assert machine({f"REFINE_{name}": value for name, value in given.items()}) == Machine(
        device="cuda:1", threads=4, workers=3, memory=5, processes=6, mirror="/mirror"
    )


def test_other_variables_do_not_matter() -> None:
    assert machine({"PATH": "/bin", "DEFINE_DEVICE": "cpu", "refine_device": "cpu"}) == machine({})


def test_the_environment_of_the_process_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINE_THREADS", "3")
    assert machine().threads == 3


def test_dvc_names_the_repository_even_in_a_temporary_copy() -> None:
    assert machine({"DVC_ROOT": "/repository"}).root == Path("/repository")
    assert machine({}).root == Path()
    with pytest.raises(UserError, match="REFINE_ROOT is not known"):
        machine({"REFINE_ROOT": "/repository"})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("REFINE_DEVIC", "REFINE_DEVICE"), ("REFINE_THREAD", "REFINE_THREADS"), ("REFINE_MIROR", "REFINE_MIRROR")],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(UserError) as refused:
        machine({name: "1"})
    assert str(refused.value) == f"the environment variable {name} is not known; did you mean {nearest}?"


def test_an_unknown_name_that_is_near_to_none_lists_them_all() -> None:
    with pytest.raises(UserError) as refused:
        machine({"REFINE_QQQQQQQQQQQQQQQQQQQQ": ""})
    assert all(name in str(refused.value) for name in NAMES)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_are_accepted(device: str) -> None:
    assert machine({"REFINE_DEVICE": device}).device == device


@pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "auto:1", "cuda 0", ":0"])
def test_no_other_device_is_accepted(device: str) -> None:
    with pytest.raises(UserError) as refused:
        machine({"REFINE_DEVICE": device})
    assert str(refused.value) == (
        f"REFINE_DEVICE={device} is not understood; give auto, cpu, cuda or cuda:N, or unset it"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("REFINE_THREADS", value) for value in ("0", "-1", "two", "1.5", "1e2", " 4", "4x")),
        *(("REFINE_WORKERS", value) for value in ("-1", "two", "0.0", "+1")),
    ],
)
def test_a_number_must_be_whole_and_large_enough(name: str, value: str) -> None:
    with pytest.raises(UserError) as refused:
        machine({name: value})
    assert str(refused.value) == f"{name}={value} is not understood; give {NAMES[name]}, or unset it"


def test_no_worker_is_a_right_number_of_workers() -> None:
    assert machine({"REFINE_WORKERS": "0"}).workers == 0


def test_only_stages_commands_and_what_torchrun_starts_read_the_environment() -> None:
    source = PROJECT / "src/refine"
    reads = re.compile(r"os\.environ|getenv|(?<!platform\.)\bmachine\(\)")
    found = {path.relative_to(source) for path in source.rglob("*.py") if reads.search(path.read_text("utf-8"))}
    edge = {f"core/{name}.py" for name in ("launch", "machine", "stage", "starter")} | {"training/processes.py"}
    assert {path.as_posix() for path in found if path.parts[0] != "command"} == edge
