"""Which defense for whom, and published figures beside ours."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from recorded_runs import name, run, with_list, write
from refine.core.errors import UserError
from refine.core.files import write_json
from refine_lab.lists.plan import plan
from refine_lab.lists.rows import read_rows
from refine_lab.pages.adapted import adapted
from refine_lab.pages.comparison.choice import chosen
from refine_lab.pages.comparison.published import COLUMNS, FILE, beside_published
from refine_lab.runs.parameters import of_defense, read_params
from refine_lab.runs.record import Defender
from refine_lab.runs.recorded import HOME

LIST = (
    "preset: quick\neach:\n  - defense: refine\n  - defense: shrinkpad\n  - defense: bcu\n  - defense: dbr\n"
    "rows:\n  - attack: badnets\n  - attack: sig\n"
)
AFTER = {"refine": (0.005, 0.98), "shrinkpad": (0.6, 0.95), "bcu": (0.004, 0.94), "dbr": (0.02, 0.9)}
REGIMES = {"refine": "unlabeled", "shrinkpad": "none", "bcu": "unlabeled", "dbr": "poisoned_train"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With every run of the list but D-BR against SIG."""
    project, _ = with_list(tmp_path / "project", LIST)
    for attack in ("badnets", "sig"):
        for defense, (asr, ba) in AFTER.items():
            if (attack, defense) == ("sig", "dbr"):
                continue
            done = run(name(attack, defense), attack_success_rate=asr, benign_accuracy=ba)
            done.diagnostics["images"] = {"benign": 1000, "triggered": 900}
            had = Defender(
                regime=REGIMES[defense], images=9, labels=False, changes_classifier=defense in ("bcu", "dbr")
            )
            write(project / HOME, replace(done, record=done.record.model_copy(update={"defender": had})))
    return project


def _cells(text: str) -> list[list[str]]:
    table = text.split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def _commands(text: str) -> dict[str, str]:
    """By the names of defenses, as they stand below the table."""
    lines = text.split("```sh\n")[1].split("```")[0].splitlines()
    return {name.removeprefix("# "): command for name, command in zip(lines[::2], lines[1::2], strict=True)}


def test_each_situation_names_its_best_defense_and_the_command(project: Path) -> None:
    text = chosen(read_rows(project / "experiments/pairs.yaml"), project)
    lines = {cells[0]: cells[1:] for cells in _cells(text)}
    assert lines["nothing but the classifier"][0] == "none of these; least bad: ShrinkPad"
    unlabeled = lines["images without labels"]
    assert unlabeled[0] == "**BCU**"
    assert unlabeled[2] == "3.8"
    assert unlabeled[5].startswith("REFINE: 0.2")
    assert lines["images without labels, and the classifier must stay as it is"][0] == "**REFINE**"
    trained = lines["the training set that the classifier was trained on"]
    assert trained[0] == "none of these; least bad: D-BR (1 of 2 attacks)"
    assert trained[5] == "-"
    assert "some labeled images" not in lines
    assert _commands(text) == {
        "ShrinkPad": "dvc exp run -S 'splits=[]' -S 'defenses=[shrinkpad]'",
        "BCU": "dvc exp run -S 'splits=[]' -S 'defenses=[bcu]'",
        "REFINE": "dvc exp run -S 'splits=[]' -S 'defenses=[]'",
        "D-BR": "dvc exp run -S 'splits=[sd]' -S 'defenses=[dbr]'",
    }


def test_a_situation_whose_defenses_were_not_run_is_named(project: Path) -> None:
    text = chosen(read_rows(project / "experiments/pairs.yaml"), project)
    assert "Not yet run" not in text
    shutil.rmtree(project / HOME / str(name("badnets", "dbr")))
    text = chosen(read_rows(project / "experiments/pairs.yaml"), project)
    assert text.endswith("Not yet run: defenses that need the training set that the classifier was trained on.")


def test_a_defense_that_costs_too_much_comes_after_one_that_lacks_attacks(project: Path) -> None:
    for attack in ("badnets", "sig"):
        file = project / HOME / str(name(attack, "bcu")) / "bcu.json"
        figures = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**figures, "benign_accuracy": 0.8}), encoding="utf-8")
    shutil.rmtree(project / HOME / str(name("sig", "refine")))
    found = _cells(chosen(read_rows(project / "experiments/pairs.yaml"), project))
    unlabeled = next(cells for cells in found if cells[0] == "images without labels")
    assert unlabeled[1] == "none of these; least bad: REFINE (1 of 2 attacks)"
    assert unlabeled[6].startswith("BCU")
    assert "attacks)" not in unlabeled[6]


def test_what_comes_next_says_how_many_attacks_it_met(project: Path) -> None:
    shutil.rmtree(project / HOME / str(name("sig", "refine")))
    found = _cells(chosen(read_rows(project / "experiments/pairs.yaml"), project))
    unlabeled = next(cells for cells in found if cells[0] == "images without labels")
    assert unlabeled[1] == "**BCU**"
    assert unlabeled[6].endswith("(1 of 2 attacks)")


def test_the_command_for_a_variant_tells_what_it_departs_in(tmp_path: Path) -> None:
    project, listed = with_list(
        tmp_path / "project",
        "preset: quick\nrows:\n  - attack: badnets\n    variant: noisy\n    seed: 2\n    changes:\n"
        "      attacks.badnets.rate: 0.2\n      train_refine.encoder.min_steps: 7\n"
        "      train_refine.encoder.random_patterns: 0.3\n      train_refine.loss: {utility: categorical}\n"
        "      other_images: [mnist5k]\n",
    )
    done = run(name(variant="noisy", seed=2), attack_success_rate=0.01, benign_accuracy=0.98)
    done.diagnostics["images"] = {"benign": 1000, "triggered": 900}
    write(project / HOME, done)
    command = _commands(chosen(read_rows(listed), project))["REFINE, noisy"]
    assert command.startswith("dvc exp run -S 'splits=[]' -S 'defenses=[]' -S ")
    told = {*command.removeprefix("dvc exp run -S ").split(" -S ")}
    assert "'++train_refine.encoder.random_patterns=0.3'" in told, "which works twice"
    assert """'other_images=["mnist5k"]'""" in told
    assert not any("attacks" in option or "seed" in option for option in told), "the defender does not choose these"
    shutil.copy(project / "presets/quick.yaml", project / "params.yaml")
    apply_overrides(str(project / "params.yaml"), [option.strip("'") for option in told])
    (_, _, wanted), *_ = plan(read_rows(listed), project)
    assert of_defense(read_params(project / "params.yaml"), wanted, "refine") == {}, "they make the variant"


def test_published_figures_stand_beside_ours(project: Path) -> None:
    (project / FILE).write_text(
        ",".join(COLUMNS) + "\n"
        "a paper,bcu,badnets,91.0,90.0,99.0,1.5\n"
        "a paper,bcu,sig,,90.0,99.0,2.5\n"
        "another,bcu,badnets,91.0,90.5,99.0,1.0\n"
        "a paper,ft,badnets,91.0,90.0,99.0,1.5\n",
        encoding="utf-8",
    )
    found = _cells(beside_published(read_rows(project / "experiments/pairs.yaml"), project))
    assert found == [
        ["BCU", "`badnets`", "a paper", "1.0", "3.8", "1.5", "0.4"],
        ["BCU", "`sig`", "a paper", "-", "3.8", "2.5", "0.4"],
        ["BCU", "mean of these", "a paper", "-", "3.8", "2.0", "0.4"],
        ["BCU", "`badnets`", "another", "0.5", "3.8", "1.0", "0.4"],
    ], "FT is not in the list"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot be read"), ("", "cannot be read"), ("source,attack\nx,y\n", "has other columns")],
)
def test_a_damaged_file_of_published_figures_is_refused(project: Path, content: str | None, sentence: str) -> None:
    (project / FILE).unlink(missing_ok=True)
    if content is not None:
        (project / FILE).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        beside_published(read_rows(project / "experiments/pairs.yaml"), project)


def test_nothing_is_chosen_before_a_run(tmp_path: Path) -> None:
    project, listed = with_list(tmp_path / "project", LIST)
    assert chosen(read_rows(listed), project) == "Not yet run."
    assert beside_published(read_rows(listed), project) == "Not yet run."


def test_what_an_attacker_found_is_a_line_for_each_pair(tmp_path: Path) -> None:
    row = {"sought_through": "refine", "tried_on": "redrawn", "success": 0.924, "interval_95": [0.918, 0.93]}
    clean = {**row, "sought_through": "clean refine", "tried_on": "clean no_defense"}
    rows = [{**each, "without": 0.02, "robust_accuracy": 0.05} for each in (row, clean)]
    write_json(tmp_path / "adapted.json", {"rows": rows})
    assert _cells(adapted(tmp_path / "adapted.json")) == [
        ["REFINE", "redrawn", "92.4 % [91.8, 93.0]", "2.0 %", "5.0 %"],
        [
            "REFINE, classifier without backdoor",
            "no defense, classifier without backdoor",
            "92.4 % [91.8, 93.0]",
            "2.0 %",
            "5.0 %",
        ],
    ]


@pytest.mark.parametrize("content", [None, {}, {"rows": [{}]}, {"rows": 3}])
def test_what_refine_adapt_did_not_write_is_refused(tmp_path: Path, content: object) -> None:
    if content is not None:
        write_json(tmp_path / "adapted.json", content)
    with pytest.raises(UserError, match="`refine adapt`"):
        adapted(tmp_path / "adapted.json")
