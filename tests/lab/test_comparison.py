"""Comparing recorded runs: figures, ranking, tables and pictures."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import pandas as pd
import pytest

from recorded_runs import name, record, run, with_list, write
from refine.core.errors import UserError
from refine_lab.lists.rows import Row, Rows, read_rows
from refine_lab.pages.comparison import pictures, tables
from refine_lab.pages.comparison.curves import over_images, over_variants
from refine_lab.pages.comparison.frame import difference_interval, measurements
from refine_lab.pages.comparison.ranking import averaged, ranking, records
from refine_lab.pages.comparison.write import write as write_files
from refine_lab.runs.record import AfterRetuning, Clean, Defender, OnTriggered, Retuned, Retuning, Shares
from refine_lab.runs.recorded import HOME

LIST = (
    "preset: quick\neach:\n  - defense: refine\n  - defense: shrinkpad\nrows:\n  - attack: badnets\n  - attack: sig\n"
)


def _clean(defended: float | None) -> Clean:
    own = None if defended is None else OnTriggered(asr_floor_triggered=defended, robust_accuracy=0.9, misread=[])
    return Clean(
        run="x", no_defense=OnTriggered(asr_floor_triggered=0.03, robust_accuracy=0.8, misread=[]), defended=own
    )


def _line(system: str, attack: str, **figures: float) -> dict[str, object]:
    base = {"asr_before": 1.0, "asr": 0.01, "floor": 0.01, "above_floor": 0.0, "der": 0.99, "ba_drop": 0.0, "ba": 0.97}
    rest = {"above_floor_low": 0.0, "above_floor_high": 0.0, "robust": 0.9, "robust_clean": 0.9, "minutes": 1.0}
    more = {"retuned": 0.2, "asr_retuned": 0.3, "ba_retuned": 0.9}
    more |= {"retuned_transform": nan, "asr_retuned_transform": nan, "ba_retuned_transform": nan}
    had = {"images": 200.0, "labels": True, "changes_classifier": True}
    return {
        "system": system,
        "attack": attack,
        "seed": 1,
        "variant": "default",
        "regime": "none",
        "ba_before": 0.98,
        **base,
        **rest,
        **more,
        **had,
        **figures,
    }


def _measured(*lines: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(lines)


def _words(drawn: str) -> set[str]:
    return {"".join(text.itertext()) for text in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")}


def test_a_list_with_each_is_every_row_with_every_entry(tmp_path: Path) -> None:
    text = (
        "preset: quick\neach:\n  - defense: shrinkpad\n"
        "  - {defense: refine, variant: few, changes: {train_refine.unlabeled_fraction: 0.2}}\n"
        "rows:\n  - {attack: sig, changes: {attacks.sig.rate: 0.8}}\n  - attack: none\n"
    )
    (tmp_path / "list.yaml").write_text(text, encoding="utf-8")
    assert read_rows(tmp_path / "list.yaml").rows == [
        Row(attack="sig", defense="shrinkpad", changes={"attacks.sig.rate": 0.8}),
        Row(attack="sig", variant="few", changes={"attacks.sig.rate": 0.8, "train_refine.unlabeled_fraction": 0.2}),
        Row(attack="none", defense="shrinkpad"),
        Row(attack="none", variant="few", changes={"train_refine.unlabeled_fraction": 0.2}),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("each:\n  - {attack: sig}\nrows:\n  - attack: sig\n", "attack is set by a row and by each; keep one"),
        ("each: [clp]\nrows:\n  - attack: sig\n", "each and rows are lists of mappings, such as `- defense: clp`"),
    ],
)
def test_what_cannot_be_multiplied_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "list.yaml").write_text(f"preset: quick\n{text}", encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        read_rows(tmp_path / "list.yaml")


def test_the_preset_s_defenses_give_way_to_the_row_s() -> None:
    preset = {"poison_dataset": {"attack": {"name": "none"}}, "defenses": ["clp", "ft"], "defense_settings": {}}
    assert Row(attack="sig").params(preset)["defenses"] == []
    assert Row(attack="sig", defense="ft").params(preset)["defenses"] == ["ft"]


def test_a_row_has_the_split_that_its_defense_names_and_no_other() -> None:
    preset = {"poison_dataset": {"attack": {"name": "none"}}, "splits": ["sd"], "defense_settings": {}}
    assert Row(attack="sig", defense="ft").params(preset)["splits"] == []
    assert Row(attack="sig", defense="dst").params(preset)["splits"] == ["sd"]
    changed = Row(attack="sig", defense="dst", changes={"defense_settings.dst.split": "oracle"})
    assert changed.params(preset)["splits"] == ["oracle"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With recorded runs of three of the four pairs of the list."""
    project, _ = with_list(tmp_path / "project", LIST)
    for attack, defense, clean in (
        ("badnets", "refine", _clean(0.005)),
        ("badnets", "shrinkpad", _clean(None)),
        ("sig", "refine", None),
    ):
        done = run(name(attack, defense), clean)
        done.diagnostics["images"] = {"benign": 1000, "triggered": 900}
        write(project / HOME, done)
    return project


def test_a_measurement_is_held_against_the_same_defense_of_a_clean_classifier(project: Path) -> None:
    found = measurements(read_rows(project / "experiments/pairs.yaml"), project)
    assert [*zip(found["attack"], found["system"], strict=True)] == [
        ("badnets", "REFINE"),
        ("badnets", "ShrinkPad"),
        ("sig", "REFINE"),
    ]
    assert found["floor"].tolist() == [0.005, 0.03, 0.003]
    assert found["floor_of"].tolist() == ["defended", "classifier", "untriggered"]
    assert found["above_floor"].tolist() == pytest.approx([-0.001, -0.026, 0.001])
    assert found["robust_clean"].tolist() == [0.9, 0.8, 0.983]
    assert found["ba_drop"].tolist() == pytest.approx([-0.005] * 3)
    assert all(isnan(value) for value in found["retuned"])


def test_minutes_are_those_of_the_training_and_of_the_split_that_it_is_given(project: Path) -> None:
    of = name("sig", "shrinkpad")
    seconds = {"train-defense@shrinkpad": 60, "split-samples@sd": 30, "train-backdoor": 600}
    runtime = {stage: {"seconds": value} for stage, value in seconds.items()}
    done = replace(run(of), record=record(of, runtime=runtime))
    done.diagnostics["images"] = {"benign": 1000, "triggered": 900}
    write(project / HOME, done)
    found = measurements(read_rows(project / "experiments/pairs.yaml"), project)
    assert found["minutes"].tolist()[-1] == 1.5
    assert isnan(found["minutes"].tolist()[0])


def test_a_defense_that_leads_to_the_target_itself_gets_no_higher_floor(project: Path) -> None:
    done = run(name("badnets"), _clean(0.2))
    done.diagnostics["images"] = {"benign": 1000, "triggered": 900}
    shutil.rmtree(project / HOME / str(name("badnets")))
    write(project / HOME, done)
    line = records(measurements(read_rows(project / "experiments/pairs.yaml"), project))[0]
    assert (line["floor"], line["floor_of"], line["robust_clean"]) == (0.03, "classifier", 0.9)


def test_what_a_defender_had_and_what_comes_back_stand_beside(project: Path) -> None:
    shares = Shares(benign_accuracy=0.9, attack_success_rate=0.7, robust_accuracy=0.2)
    after = AfterRetuning(mean=shares, each=[shares])
    less = AfterRetuning(mean=shares.model_copy(update={"attack_success_rate": 0.1}), each=[shares])
    retuning = Retuning(
        settings={},
        images=85,
        poisoned=5,
        clean_run="x",
        clean_defended=True,
        no_defense=Retuned(attacked=after, clean=less),
        defended={"all": Retuned(attacked=after, clean=less), "transform": Retuned(attacked=less, clean=less)},
    )
    defender = Defender(regime="unlabeled", images=4000, labels=False, changes_classifier=False)
    of = name("sig", "shrinkpad")
    done = replace(run(of), record=record(of, retuning=retuning, defender=defender))
    done.diagnostics["images"] = {"benign": 1000, "triggered": 900}
    write(project / HOME, done)
    found = measurements(read_rows(project / "experiments/pairs.yaml"), project)
    (line,) = records(found[found["defense"] == "shrinkpad"].tail(1))
    assert (line["retuned"], line["retuned_transform"]) == pytest.approx((0.6, 0.0))
    assert (line["images"], line["labels"], line["changes_classifier"]) == (4000, False, False)
    listed = read_rows(project / "experiments/pairs.yaml")
    assert "60.0 (BA ≥ 90.0 %); transform alone: 0.0 (BA ≥ 90.0 %)" in tables.ranked(listed, project)
    other = replace(done, record=record(of, retuning=retuning.model_copy(update={"clean_defended": False})))
    shutil.rmtree(project / HOME / str(of))
    write(project / HOME, other)
    page = tables.compared(listed, project)
    assert "70.0 % itself (BA 90.0 %); transform alone: 10.0 % itself (BA 90.0 %)" in page


def test_the_interval_of_a_difference_is_newcombe_s() -> None:
    """His examples: 56/70 - 48/80, from 0.0524 to 0.3339, and 9/10 - 3/10, from 0.1705 to 0.8090."""
    assert difference_interval(56 / 70, 48 / 80, 70, 80) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert difference_interval(0.9, 0.3, 10, 10) == pytest.approx((0.1705, 0.8090), abs=1e-4)
    assert difference_interval(0.3, 0.9, 10, 10) == pytest.approx((-0.8090, -0.1705), abs=1e-4)


def test_systems_are_ranked_by_their_worst_attack_then_by_der() -> None:
    measured = _measured(
        _line("good but once", "badnets"),
        _line("good but once", "sig", above_floor=0.5),
        _line("even", "badnets", above_floor=0.1, der=0.9),
        _line("even", "sig", above_floor=0.1, der=0.9),
        _line("even and better", "badnets", above_floor=0.1, der=0.95),
        _line("even and better", "sig", above_floor=0.02, der=0.95),
        _line("measured once", "badnets"),
    )
    table = ranking(measured)
    assert table["system"].tolist() == ["even and better", "even", "good but once", "measured once"]
    assert table["worst"].tolist() == ["badnets", "badnets", "sig", "badnets"]
    assert table["attacks"].tolist() == [2, 2, 2, 1]


def test_attacks_that_do_not_take_do_not_count() -> None:
    measured = _measured(
        _line("one", "badnets", above_floor=0.2),
        _line("one", "wanet", asr_before=0.79, above_floor=0.7),
        _line("other", "badnets", above_floor=0.3),
        _line("other", "wanet", asr_before=0.79),
    )
    assert ranking(measured)["above_floor"].tolist() == [0.2, 0.3]
    assert ranking(measured[measured["attack"] == "wanet"]).empty


def test_seeds_are_averaged() -> None:
    measured = _measured(_line("one", "sig", asr=0.1), _line("one", "sig", asr=0.3, seed=2), _line("two", "sig"))
    cells = averaged(measured)
    assert cells["asr"].tolist() == pytest.approx([0.2, 0.01])
    assert cells["seeds"].tolist() == [2, 1]
    assert cells["regime"].tolist() == ["none", "none"]
    text = tables.latex(measured)
    assert text.startswith("\\begin{tabular}")
    assert r"$97.0 \pm 0.0$ / $20.0 \pm 14.1$" in text
    assert r"$97.0$ / $1.0$" in text


def test_a_paper_s_table_escapes_names() -> None:
    assert r"clean\_label" in tables.latex(_measured(_line("one", "clean_label")))


def test_pictures_name_every_system_and_attack_and_tell_which_did_not_take() -> None:
    measured = _measured(
        _line("one", "badnets", above_floor=0.5), _line("two", "wanet", asr_before=0.7), _line("two", "badnets")
    )
    for drawn in (pictures.heat_map(measured), pictures.small_multiples(measured)):
        words = _words(drawn)
        assert {"one", "two", "badnets", "wanet (70 %)"} <= words
    assert ">50.0<" in pictures.heat_map(measured)


def test_curves_are_of_defenses_that_were_measured_with_several_numbers_of_images() -> None:
    few, many = (_line("s", "sig", images=images, ba_drop=drop) for images, drop in ((40.0, 0.5), (800.0, 0.1)))
    few |= {"variant": "unlabeled_5"}
    lines = [few | {"defense": "refine"}, many | {"defense": "refine"}, many | {"defense": "shrinkpad"}]
    lines.append(many | {"defense": "refine", "images": 160.0, "variant": "held_out"})
    drawn = over_images(_measured(*lines))
    assert drawn is not None
    assert {"sig", "40", "800"} <= _words(drawn)
    assert not {"160", "ShrinkPad"} & _words(drawn)
    assert over_images(_measured(*lines[1:])) is None


def test_curves_of_several_defenses_name_them() -> None:
    few, many = (_line("s", "sig", images=images) for images in (40.0, 800.0))
    lines = [line | {"defense": defense} for line in (few, many) for defense in ("refine", "bcu")]
    drawn = over_images(_measured(*lines))
    assert drawn is not None
    assert {"REFINE", "BCU", "sig"} <= _words(drawn)


def test_variants_of_one_defense_are_a_curve_in_the_order_of_the_list() -> None:
    lines = [
        _line("s", attack, ba_drop=drop) | {"defense": "refine", "variant": variant}
        for attack in ("sig", "wanet")
        for variant, drop in (("half", 0.1), ("kept", 0.0), ("fresh", 0.2))
    ]
    order = ["kept", "quarter", "half", "fresh"]
    drawn = over_variants(_measured(*lines), order)
    assert drawn is not None
    words = ["".join(text.itertext()) for text in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word in ("kept", "half", "fresh")] == 2 * ["kept", "half", "fresh"]
    assert {"sig", "wanet"} <= {*words}
    assert over_variants(_measured(*lines[:2]), order) is None
    assert over_variants(_measured(*lines, lines[0] | {"defense": "bcu"}), order) is None


def test_files_of_a_comparison_are_written_and_read_back(project: Path, tmp_path: Path) -> None:
    files = write_files(project / "experiments/pairs.yaml", tmp_path / "out", project)
    assert sorted(path.name for path in files) == ["defenses.svg", "heat-map.svg", "measurements.csv", "table.tex"]
    table = pd.read_csv(tmp_path / "out/measurements.csv")
    assert table["asr"].tolist() == [0.004] * 3
    page = tables.ranked(read_rows(project / "experiments/pairs.yaml"), project)
    first = next(line for line in page.splitlines() if line.startswith("| 1 "))
    assert [cell.strip() for cell in first.split("|")][2:6] == ["REFINE", "`unlabeled`", "-", "-"]
    assert "0.1 [" in first
    assert "`sig`" in first
    lines = tables.compared(read_rows(project / "experiments/pairs.yaml"), project).splitlines()
    assert len(lines) == 5
    assert "100.0 % → 0.4 %" in lines[2]


@pytest.mark.parametrize(("other", "told"), [("a", False), ("b", True)])
def test_rows_that_defend_different_classifiers_are_told(project: Path, other: str, told: bool) -> None:
    for defense, classifier in (("refine", "a"), ("shrinkpad", other)):
        of = name("badnets", defense)
        done = replace(run(of), record=record(of, outputs={"models/backdoor": classifier}))
        done.diagnostics["images"] = {"benign": 1000, "triggered": 900}
        shutil.rmtree(project / HOME / str(of))
        write(project / HOME, done)
    page = tables.compared(read_rows(project / "experiments/pairs.yaml"), project)
    assert ("The classifier of `badnets` was trained more than once" in page) == told


def test_without_any_run_there_is_a_sentence(project: Path, tmp_path: Path) -> None:
    (project / "experiments/none.yaml").write_text("preset: quick\nrows:\n  - attack: wanet\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"no run of .* with an attack is recorded; type `refine run-list"):
        write_files(project / "experiments/none.yaml", tmp_path / "out", project)
    assert tables.ranked(Rows(preset="quick", rows=[Row(attack="wanet")]), project) == "Not yet run."
