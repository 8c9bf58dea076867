"""Lists of runs as they are read and checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from refine.core.errors import UserError
from refine.reports.lists import Row, Rows, checked, read_rows, refuse_other
from refine.reports.record import record
from refine.reports.run import HOME
from support import PROJECT


def _read(path: Path, text: str) -> Rows:
    path.write_text(text, encoding="utf-8")
    return read_rows(path)


def test_a_row_departs_from_its_preset_where_it_says() -> None:
    preset = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    row = Row(attack="sig", seed=3, changes={"attacks.sig.rate": 0.5, "train_refine.recipe.epochs": 2})
    params = Rows(preset="quick", rows=[row]).params(row, preset)
    assert params["poison_dataset"] == {"attack": {"name": "sig"}, "seed": 3}
    assert params["attacks"]["sig"] == {"rate": 0.5}
    assert (params["train_refine"]["recipe"]["epochs"], params["train_refine"]["seed"]) == (2, 3)
    assert preset["attacks"]["sig"] == {}


def test_a_list_with_an_unknown_entry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list.yaml is no .*: list\.rows\.0: 'atack' is not known, did you mean 'att"):
        _read(tmp_path / "list.yaml", "preset: quick\nrows:\n  - atack: badnets\n")


@pytest.mark.parametrize("content", [b"rows: [", b"\xff", b"- 1\n", b"", b"[" * 1000])
def test_what_is_no_list_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"list\.yaml (is no list of runs|cannot be read as YAML): "):
        read_rows(path)


@pytest.mark.parametrize("name", ["other.yaml", "."])
def test_a_list_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"is no list of runs; `ls experiments` shows those there are"):
        read_rows(tmp_path / name)


def test_a_list_names_each_run_once() -> None:
    listed = Rows(preset="quick", rows=[Row(attack="badnets"), Row(attack="badnets", machine={"REFINE_THREADS": 1})])
    with pytest.raises(UserError, match="two rows are called mnist5k-quick-badnets-default-s1; give one of them anot"):
        checked(listed, PROJECT)


@pytest.mark.parametrize("line", ["REFINE_THREADS: 1", "ONEDNN_MAX_CPU_ISA: SSE41", "ATEN_CPU_CAPABILITY: avx2"])
def test_a_row_may_ask_for_settings_of_the_machine(tmp_path: Path, line: str) -> None:
    (row,) = _read(tmp_path / "list.yaml", f"preset: quick\nrows: [{{attack: none, machine: {{{line}}}}}]").rows
    name, _, value = line.partition(": ")
    assert {key: str(given) for key, given in row.machine.items()} == {name: value}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("REFINE_THREAD: 1", "'REFINE_THREAD' is not known, did you mean 'REFINE_THREADS'"),
        ("LD_PRELOAD: a.so", "'LD_PRELOAD' is not known, choose from ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, REFINE"),
        ("REFINE_THREADS: 0", "REFINE_THREADS=0 is not understood; give a whole number of CPU threads"),
        ("REFINE_THREADS: 1.5", "valid integer"),
        ("ONEDNN_MAX_CPU_ISA: sse4", "ONEDNN_MAX_CPU_ISA=sse4 is not understood; give one of SSE41, AVX, "),
        ("ATEN_CPU_CAPABILITY: AVX2", "ATEN_CPU_CAPABILITY=AVX2 is not understood; give one of default, avx2, avx512"),
    ],
)
def test_other_settings_of_the_machine_are_refused(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        _read(tmp_path / "list.yaml", f"preset: quick\nrows: [{{attack: none, machine: {{{line}}}}}]")
    assert told in str(refused.value)


def test_a_recorded_run_does_not_stand_for_other_parameters(preset: Path) -> None:
    folder = record(preset, preset / HOME, "quick", "default")
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["attacks"]["sig"] = {"rate": 0.5}
    refuse_other(folder, params, {})
    with pytest.raises(UserError, match=r"recorded with other parameters \(machine\); remove it"):
        refuse_other(folder, params, {"REFINE_THREADS": 1})
    params["train_refine"]["recipe"]["epochs"] += 1
    with pytest.raises(UserError, match=r"recorded with other parameters \(train_refine\.recipe\.epochs\); remove it"):
        refuse_other(folder, params, {})
    refuse_other(folder.with_name("another"), params, {})
