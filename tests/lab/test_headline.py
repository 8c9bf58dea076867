"""The table that says in few columns what REFINE costs and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recorded_runs import AFTER, name, record, run, with_list, write
from refine_lab.lists.rows import read_rows
from refine_lab.pages.headline import headline
from refine_lab.runs.record import Clean, Defender, OnTriggered
from refine_lab.runs.recorded import HOME, Run

LIST = (
    "preset: quick\nrows:\n  - {attack: none, seed: 1}\n  - {attack: badnets, seed: 1}\n"
    "  - {attack: badnets, seed: 2}\n  - {attack: badnets, seed: 3}\n  - {attack: sig}\n  - {attack: blended}\n"
)
CLEAN = Clean(
    run="x",
    no_defense=OnTriggered(asr_floor_triggered=0.003, robust_accuracy=0.98, misread=[]),
    defended=OnTriggered(asr_floor_triggered=0.001, robust_accuracy=0.97, misread=[]),
)
IMAGES = Defender(regime="unlabeled", images=1234, labels=False, changes_classifier=False)


def _run(attack: str, seed: int, ba: float, clean: Clean | None = CLEAN, parts: Any = None) -> Run:
    of = name(attack, seed=seed)
    done = run(of, clean, benign_accuracy=ba)
    runtime = {"train-refine": {"seconds": 60.0 * seed, "threads": 2, "device_name": "cpu", "instructions": "AVX2"}}
    made = record(of, clean=clean, runtime=runtime, defender=IMAGES)
    diagnostics = {**done.diagnostics, **({} if parts is None else {"parts": {"encoder": parts}})}
    return Run(done.folder, made, done.figures, diagnostics)


def _page(project: Path) -> str:
    return headline(read_rows(project / "experiments/pairs.yaml"), project)


def _cells(project: Path) -> list[dict[str, str]]:
    lines = _page(project).split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the list and no recorded run."""
    return with_list(tmp_path / "project", LIST)[0]


def test_seeds_are_a_mean_with_its_interval(project: Path) -> None:
    """Drops of 1, 2 and 3 points: 2, and 4.303 standard errors of 1 / sqrt(3) to each side."""
    for seed, ba in ((1, 0.968), (2, 0.958), (3, 0.948)):
        write(project / HOME, _run("badnets", seed, ba))
    (line,) = _cells(project)
    assert line["attack"] == "`badnets`"
    assert (line["seeds"], line["images"], line["on"]) == ("3", "1,234", "cpu, AVX2, 2 threads")
    assert line["BA drop"] == "2.0 [-0.5, 4.5]"
    assert line["minutes"] == "2.0 [-0.5, 4.5]"
    assert line["ASR above floor"] == "0.3 [0.3, 0.3]"
    assert line["robust accuracy lost"] == "0.5 [0.5, 0.5]"
    assert line["BA drop, encoder alone"] == line["ASR above floor, encoder alone"] == "-"
    assert line["ASR before"] == "100.0 [100.0, 100.0]"
    assert "3 of the 6 rows of this list have not been run." in _page(project)


def test_the_encoder_alone_stands_beside_the_defense(project: Path) -> None:
    alone = {**AFTER, "benign_accuracy": 0.97, "attack_success_rate": 0.021}
    write(project / HOME, _run("badnets", 1, 0.978, parts=alone))
    (line,) = _cells(project)
    assert (line["BA drop"], line["BA drop, encoder alone"]) == ("0.0", "0.8")
    assert (line["ASR above floor"], line["ASR above floor, encoder alone"]) == ("0.3", "2.0")


def test_what_a_run_does_not_tell_is_left_open(project: Path) -> None:
    """Without attack there is nothing but the drop, and without a clean run no floor that counts."""
    write(project / HOME, _run("none", 1, 0.975, clean=None))
    write(project / HOME, _run("sig", 1, 0.975, clean=None, parts=AFTER))
    none, sig = _cells(project)
    assert (none["BA drop"], sig["BA drop"], sig["BA drop, encoder alone"]) == ("0.3", "0.3", "-0.5")
    assert (none["ASR before"], sig["ASR before"]) == ("-", "100.0")
    for line in (none, sig):
        assert line["ASR above floor"] == line["ASR above floor, encoder alone"] == line["robust accuracy lost"] == "-"


def test_agreement_is_shown_where_a_run_tells_it(project: Path) -> None:
    write(project / HOME, _run("sig", 1, 0.975))
    assert "agreement" not in _cells(project)[0]
    told = _run("badnets", 1, 0.968)
    told.diagnostics["refine"] = {"agreement": 0.9712}
    write(project / HOME, told)
    badnets, sig = _cells(project)
    assert (badnets["agreement"], sig["agreement"]) == ("97.1", "-")


def test_without_runs_it_says_so(project: Path) -> None:
    assert _page(project) == "Not yet run."


def test_runs_of_several_defenses_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    text = "preset: quick\nrows:\n  - attack: badnets\n  - {attack: badnets, defense: shrinkpad}\n"
    project = with_list(tmp_path / "project", text)[0]
    write(project / HOME, _run("badnets", 1, 0.968))
    write(project / HOME, run(name(defense="shrinkpad")))
    refine, other = _cells(project)
    assert (refine["seeds"], other["seeds"]) == ("1", "1")
    assert (refine["BA before"], refine["BA drop"]) == ("97.8", "1.0")
    assert (other["BA before"], other["BA drop"], other["images"]) == ("97.8", "-", "-"), "which is not REFINE's"


AIMED = "aims: {ba_drop: 2.0, above_floor: 0.3, core_minutes: 3.0}"


@pytest.mark.parametrize(
    ("ba", "seconds", "missed"),
    [(0.959, 90, "met"), (0.957, 91, "**missed**: BA drop"), (0.957, 100, "**missed**: BA drop, minutes")],
    ids=["met", "rounded", "missed"],
)
def test_a_row_is_held_against_its_aims(tmp_path: Path, ba: float, seconds: float, missed: str) -> None:
    text = f"preset: quick\nrows:\n  - {{attack: badnets, {AIMED}}}\n  - attack: sig\n"
    project = with_list(tmp_path / "project", text)[0]
    done = _run("badnets", 1, ba)
    done.record.runtime["train-refine"]["seconds"] = seconds
    write(project / HOME, done)
    write(project / HOME, _run("sig", 1, 0.9))
    badnets, sig = _cells(project)
    assert badnets["aims"] == f"2, 0.3, 5, 3: {missed}", "of two threads"
    assert sig["aims"] == "-"


def test_what_nobody_can_tell_is_neither_met_nor_missed(tmp_path: Path) -> None:
    text = f"preset: quick\nrows:\n  - {{attack: badnets, {AIMED}}}\n"
    project = with_list(tmp_path / "project", text)[0]
    write(project / HOME, _run("badnets", 1, 0.97, clean=None))
    (line,) = _cells(project)
    assert line["aims"] == "2, 0.3, 5, 3: met; not known: ASR, robust accuracy"


def test_without_aims_there_is_no_column_of_them(project: Path) -> None:
    write(project / HOME, _run("badnets", 1, 0.968))
    assert "aims" not in _cells(project)[0]
