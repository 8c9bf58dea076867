"""Tables of recorded runs: what their cells say, and what is said under them."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorded_runs import name, record, run
from refine.core.registry import ATTACKS, DEFENSES, names
from refine_lab.lists.plan import plan
from refine_lab.lists.rows import Row, Rows
from refine_lab.pages import lines, notes, tables
from refine_lab.pages.aim import aim
from refine_lab.runs.record import Clean, OnTriggered
from refine_lab.runs.recorded import Run
from support import PROJECT

CLEAN = Clean(
    run="mnist5k-quick-none-refine-default-s1",
    no_defense=OnTriggered(asr_floor_triggered=0.045, robust_accuracy=0.9, misread=[]),
    defended=OnTriggered(asr_floor_triggered=0.08, robust_accuracy=0.5, misread=[]),
)
ALONE = CLEAN.model_copy(update={"defended": None})
ROW = Row(attack="badnets")
FIGURES = [
    ("BA", "97.8 % → 98.3 % [97.3, 98.9]"),
    ("ASR", "100.0 % → 0.4 % [0.1, 1.0]"),
    ("floor", "0.2 % → 0.3 %"),
    ("floor with trigger", "4.5 % → 8.0 %"),
    ("robust accuracy", "0.0 % → 97.5 % [96.3, 98.3]"),
    ("DER", "0.998"),
]


@pytest.mark.parametrize("defense", ["refine", "shrinkpad"])
def test_every_row_has_ba_asr_floors_robust_accuracy_and_der_in_this_order(defense: str) -> None:
    done = run(name(defense=defense), CLEAN)
    for line in (
        lines.attack_line(ROW, done),
        lines.spread_line(ROW, done),
        lines.result_line(ROW, done, {}),
        lines.defense_line(ROW, done),
    ):
        assert [cell for cell in line.items() if cell[0] in dict(FIGURES)] == FIGURES


def test_what_is_not_known_is_a_dash() -> None:
    assert lines.attack_line(ROW, run())["floor with trigger"] == "-"
    assert lines.attack_line(ROW, run(clean=ALONE))["floor with trigger"] == "4.5 % → -"
    benign = lines.attack_line(ROW, run(name("none")))
    assert benign["BA"] == "97.8 % → 98.3 % [97.3, 98.9]"
    assert {benign[column] for column in ("ASR", "floor", "robust accuracy", "DER")} == {"-"}
    assert benign["aim"] == "no attack"


def test_what_the_name_says_is_not_said_again() -> None:
    of = name(defense="shrinkpad", seed=2)
    departs = {"poison_dataset.attack.name": "wanet", "defenses": ["shrinkpad"], "train_backdoor.seed": 2}
    own = {"attacks.wanet.k": 4, "train_backdoor.recipe.seed": 1}
    done = Run(Path(), record(of, changes={**departs, **own}), run(of).figures, {})
    assert lines.attack_line(ROW, done)["departs from the defaults in"] == "`k: 4`, `train_backdoor.recipe.seed: 1`"


def test_a_line_has_the_times_of_the_stages_of_its_defense() -> None:
    of = name(defense="shrinkpad")
    machine = {"device_name": "cpu", "threads": 3, "versions": {"torch": "2"}, "seconds": 120}
    runtime = {"train-backdoor": {"seconds": 60}, "train-defense@shrinkpad": machine, "train-refine": {"seconds": 6000}}
    done = Run(Path(), record(of, runtime=runtime), run(of).figures, {})
    line = lines.result_line(ROW, done, {})
    assert (line["minutes, attack"], line["minutes, defense"]) == ("1", "2")
    assert line["on"] == "cpu, 3 threads, torch 2"
    assert lines.spread_line(ROW, done)["threads"] == "3"
    elsewhere = lines.result_line(ROW, run(of), {})
    assert (elsewhere["minutes, attack"], elsewhere["minutes, defense"]) == ("from the cache", "from the cache")
    assert "on" not in elsewhere


def test_notes_name_systems_by_their_titles() -> None:
    assert "Figures: no defense → REFINE [95 % interval" in notes.notes([run()])[0]
    assert "Figures: no defense → ShrinkPad [95 % interval" in notes.notes([run(name(defense="shrinkpad"))])[0]
    both = notes.notes([run(), run(name(defense="shrinkpad"))])[0]
    assert "Figures: no defense → the defense of the row [" in both
    removed = notes.notes([run(name(defense="removed"))])[0]
    assert "no defense → removed [" in removed


def test_notes_name_the_clean_run_and_say_where_there_is_none() -> None:
    clean, no_attack = run(clean=CLEAN), run(name("none"))
    assert "the clean classifier of `mnist5k-quick-none-refine-default-s1` answers so" in notes.notes([clean])[0]
    assert "- in *floor" not in notes.notes([clean, no_attack])[0]
    assert "- in *floor with trigger*: no run without attack" in notes.notes([clean, run()])[0]
    assert notes.notes([]) == []


@pytest.mark.parametrize(
    ("clean", "after", "expected"),
    [
        (None, {}, "met"),
        (None, {"attack_success_rate": 0.05}, "**missed**: ASR after is 4.7 points above its floor"),
        (
            None,
            {"robust_accuracy": 0.668},
            "**missed**: 33.2 % of the triggered images are not read as what they are",
        ),
        (CLEAN, {"attack_success_rate": 0.085, "robust_accuracy": 0.46}, "met"),
        (CLEAN, {"attack_success_rate": 0.095}, "**missed**: ASR after is 1.5 points above its floor"),
        (
            CLEAN,
            {"robust_accuracy": 0.44},
            "**missed**: 56.0 % of the triggered images are not read as what they are (50.0 % without backdoor)",
        ),
        (
            ALONE,
            {"attack_success_rate": 0.06, "robust_accuracy": 0.84},
            "**missed**: ASR after is 1.5 points above its floor, "
            "16.0 % of the triggered images are not read as what they are (10.0 % without backdoor)",
        ),
    ],
)
@pytest.mark.parametrize("defense", ["refine", "shrinkpad"])
def test_a_row_says_whether_the_aim_was_met(
    clean: Clean | None, after: dict[str, float], expected: str, defense: str
) -> None:
    assert aim(run(name(defense=defense), clean, **after)) == expected


def test_an_attack_that_did_not_succeed_misses_the_aim() -> None:
    weak = run()
    weak.before["attack_success_rate"] = 0.4
    assert aim(weak) == "**missed**: ASR before is under 90.0 %"


def test_broken_classification_says_what_images_are_taken_for() -> None:
    broken = run(misread=[{"as": "1", "share": 0.2}, {"as": "8", "share": 0.1}], robust_accuracy=0.6)
    assert aim(broken).endswith("not read as what they are, most often as `1` (20.0 %)")


def copied_presets(folder: Path) -> Path:
    (folder / "presets").symlink_to(PROJECT / "presets")
    return folder


def test_a_run_that_is_not_recorded_is_not_yet_run() -> None:
    listed = Rows(preset="quick", rows=[Row(attack="badnets", seed=999)])
    for table in (tables.attacks, tables.defenses, tables.spread):
        assert "not yet run" in table(listed, PROJECT)


def test_results_leave_out_what_was_not_run_and_count_it() -> None:
    missing = Row(attack="badnets", seed=999)
    none = tables.results(Rows(preset="quick", rows=[missing]), PROJECT)
    assert none == "None of the 1 rows of this list has been run."
    some = tables.results(Rows(preset="quick", rows=[Row(attack="badnets"), missing]), PROJECT)
    assert "999" not in some
    assert some.endswith("1 of the 2 rows of this list have not been run.")
    assert "have not been run" not in tables.results(Rows(preset="quick", rows=[Row(attack="badnets")]), PROJECT)


def test_lists_with_rows_that_were_not_run_have_the_command_that_runs_them(tmp_path: Path) -> None:
    lists = copied_presets(tmp_path) / "experiments"
    lists.mkdir()
    (lists / "one.yaml").write_text("preset: quick\nrows: [{attack: badnets}, {attack: badnets, seed: 999}]\n")
    *_, line = tables.not_run(lists, tmp_path).splitlines()
    assert line == "| 2 of 2    | `refine run-list experiments/one.yaml` |"
    (tmp_path / "metrics").symlink_to(PROJECT / "metrics")
    assert "1 of 2" in tables.not_run(lists, tmp_path)
    (lists / "one.yaml").write_text("preset: quick\nrows: [{attack: badnets}]\n")
    assert tables.not_run(lists, tmp_path) == "All rows of all lists have been run."


def test_attacks_and_defenses_that_no_row_names_are_not_yet_run() -> None:
    listed = Rows(preset="quick", rows=[Row(attack="badnets", seed=999)])
    attacks = tables.attacks(listed, PROJECT).splitlines()
    assert len(attacks) == 2 + len(names(ATTACKS))
    assert all(sum(f"`{name}`" in line and "not yet run" in line for line in attacks) == 1 for name in names(ATTACKS))
    defenses = tables.defenses(listed, PROJECT).splitlines()
    assert len(defenses) == 2 + len(names(DEFENSES))
    assert all(sum(f"`{name}`" in line and "not yet run" in line for line in defenses) == 1 for name in names(DEFENSES))


def test_what_all_rows_share_is_said_once_above_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"download.source": "cifar10", "train_refine.encoder": None}
    own = {**shared, "train_refine.remap": False}
    rows = [
        Row(attack="badnets", seed=998, changes=shared),
        Row(attack="badnets", seed=999, changes=own),
    ]
    listed = Rows(preset="cpu", rows=rows)
    monkeypatch.setattr(tables, "read_all", lambda _: {str(name): run() for _, name, _ in plan(listed, PROJECT)})
    above, _, table = tables.results(listed, PROJECT).partition("\n")
    assert above == "Every row departs from `cpu` in `download.source: cifar10`, `train_refine.encoder: null`."
    assert "cifar10" not in table
    assert table.count("`train_refine.remap: false`") == 1
