"""Lists of runs as they are read and checked."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from recorded_runs import name, run, write
from refine.core.errors import UserError
from refine_lab.lists.plan import checked, refuse_other
from refine_lab.lists.rows import Row, Rows, read_rows
from support import PROJECT, TINY_PARAMS

QUICK: dict[str, Any] = yaml.safe_load((PROJECT / "presets/quick.yaml").read_text(encoding="utf-8"))


def _read(path: Path, text: str) -> Rows:
    path.write_text(text, encoding="utf-8")
    return read_rows(path)


def test_a_row_departs_from_its_preset_where_it_says() -> None:
    before = copy.deepcopy(QUICK)
    row = Row(attack="sig", seed=3, changes={"attacks.sig.rate": 0.5, "train_refine.recipe.epochs": 2})
    params = row.params(QUICK)
    assert params["poison_dataset"] == {"attack": {"name": "sig"}, "seed": 3, "held_out": 0.0, "contaminated": 0.0}
    assert params["attacks"] == {"sig": {"rate": 0.5}}
    assert (params["train_refine"]["recipe"]["epochs"], params["train_refine"]["seed"]) == (2, 3)
    assert params["defenses"] == []
    assert before == QUICK


def test_a_row_with_another_defense_asks_for_it() -> None:
    params = Row(attack="badnets", defense="shrinkpad", seed=2).params(QUICK)
    assert params["defenses"] == ["shrinkpad"]
    assert params["defense_data"]["seed"] == 2


def test_a_change_below_what_is_no_mapping_is_refused() -> None:
    with pytest.raises(UserError, match=r"train_refine\.seed\.of cannot be changed, because seed is 1; give seed"):
        Row(attack="badnets", changes={"train_refine.seed.of": 2}).params(QUICK)


def test_an_unknown_defense_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="defenses: 'shrinkpd' is not known, did you mean 'shrinkpad'"):
        checked(Rows(preset="quick", rows=[Row(attack="badnets", defense="shrinkpd")]), PROJECT)


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


def test_a_list_may_have_the_rows_of_another_one(tmp_path: Path) -> None:
    (tmp_path / "attacks.yaml").write_text("preset: quick\nrows:\n  - attack: none\n  - {attack: sig, seed: 2}\n")
    listed = tmp_path / "digits.yaml"
    listed.write_text("preset: digits\nrows: attacks.yaml\neach: [{defense: clp}]\n")
    read = read_rows(listed)
    assert read.preset == "digits"
    assert [(row.attack, row.seed, row.defense) for row in read.rows] == [("none", 1, "clp"), ("sig", 2, "clp")]


@pytest.mark.parametrize("other", ["missing.yaml", "digits.yaml", "../attacks.yaml", "text.yaml", "each.yaml"])
def test_rows_of_what_is_no_list_are_refused(tmp_path: Path, other: str) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (tmp_path / "attacks.yaml").write_text("preset: quick\nrows: [{attack: none}]\n")
    (folder / "text.yaml").write_text("a sentence\n")
    (folder / "each.yaml").write_text("preset: quick\nrows: [{attack: none}]\neach: [{defense: clp}]\n")
    (folder / "digits.yaml").write_text(f"preset: digits\nrows: {other}\n")
    with pytest.raises(UserError, match=f"takes its rows from {Path(other).name}, which is no list of runs beside it"):
        read_rows(folder / "digits.yaml")


def test_a_list_names_each_run_once() -> None:
    rows = [Row(attack="badnets"), Row(attack="badnets", machine={"REFINE_THREADS": 1})]
    with pytest.raises(UserError, match="two rows are called mnist5k-quick-badnets-refine-default-s1; give one of th"):
        checked(Rows(preset="quick", rows=rows), PROJECT)


@pytest.mark.parametrize("line", ["REFINE_THREADS: 1", "ONEDNN_MAX_CPU_ISA: SSE41", "ATEN_CPU_CAPABILITY: avx2"])
def test_a_row_may_ask_for_settings_of_the_machine(tmp_path: Path, line: str) -> None:
    (row,) = _read(tmp_path / "list.yaml", f"preset: quick\nrows: [{{attack: none, machine: {{{line}}}}}]").rows
    variable, _, value = line.partition(": ")
    assert {key: str(given) for key, given in row.machine.items()} == {variable: value}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("REFINE_THREAD: 1", "'REFINE_THREAD' is not known, did you mean 'REFINE_THREADS'"),
        ("LD_PRELOAD: a.so", "'LD_PRELOAD' is not known, choose from ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, REFINE"),
        ("REFINE_THREADS: 0", "REFINE_THREADS=0 is not understood; give a whole number of CPU threads"),
        ("REFINE_THREADS: 1.5", "valid integer"),
        ("ONEDNN_MAX_CPU_ISA: sse4", "ONEDNN_MAX_CPU_ISA=sse4 is not understood; give one of SSE41, AVX, "),
        ("ATEN_CPU_CAPABILITY: AVX2", "ATEN_CPU_CAPABILITY=AVX2 is not understood; give one of default, avx2, avx512"),
    ],
)
def test_other_settings_of_the_machine_are_refused(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        _read(tmp_path / "list.yaml", f"preset: quick\nrows: [{{attack: none, machine: {{{line}}}}}]")
    assert sentence in str(refused.value)


def test_a_recorded_run_does_not_stand_for_other_parameters(tmp_path: Path) -> None:
    folder, row = write(tmp_path, run()), Row(attack="badnets")
    params = copy.deepcopy(TINY_PARAMS)
    refuse_other(folder, params, row)
    params["attacks"] = {"badnets": {"rate": 0.2}, "sig": {"rate": 0.5}}
    params["defense_settings"] = {"shrinkpad": {"pad": 1}}
    refuse_other(folder, params, row)
    with pytest.raises(UserError, match=r"recorded with other parameters \(machine\); remove it"):
        refuse_other(folder, params, Row(attack="badnets", machine={"REFINE_THREADS": 1}))
    params["train_refine"]["recipe"]["epochs"] += 1
    params["attacks"]["badnets"]["rate"] = 0.3
    wrong = r"other parameters \(attacks\.badnets\.rate, train_refine\.recipe\.epochs\); remove it"
    with pytest.raises(UserError, match=wrong):
        refuse_other(folder, params, row)
    refuse_other(folder.with_name("another"), params, row)


def test_a_run_with_another_defense_does_not_stand_for_other_settings_of_it(tmp_path: Path) -> None:
    folder, row = write(tmp_path, run(name(defense="shrinkpad"))), Row(attack="badnets", defense="shrinkpad")
    params = copy.deepcopy(TINY_PARAMS)
    params["train_refine"]["recipe"]["epochs"] += 1
    refuse_other(folder, params, row)
    params["defense_settings"] = {"shrinkpad": {"pad": 1}}
    with pytest.raises(UserError, match=r"other parameters \(defense_settings\.shrinkpad\.pad\); remove it"):
        refuse_other(folder, params, row)
