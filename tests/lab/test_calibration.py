"""The calibration of the signs: which models there are, where a threshold lies, and what is told of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from refine.command import parameters
from refine.core.errors import UserError
from refine.core.files import write_json
from refine.core.machine import DEFAULTS
from refine.proof.judging.params import SignsParams
from refine.proof.judging.thresholds import read_thresholds
from refine_lab.calibration.about import DONE, About
from refine_lab.calibration.measure import COLUMNS, finished, measure
from refine_lab.calibration.pages import table, write
from refine_lab.calibration.plan import ATTACKS, CLEAN, HALVES, chosen, models
from refine_lab.calibration.threshold import calibrated, threshold
from support import PROJECT
from tiny import attack, classifier_folder, defense_folder, poisoned, raw


def test_there_are_two_halves_of_twenty_and_twenty() -> None:
    made = models()
    for half in HALVES:
        own = [model for model in made if model.half == half]
        assert Counter(model.attack for model in own) == {CLEAN: 20, **dict.fromkeys(ATTACKS, 5)}
        assert Counter(model.data for model in own) == {"mnist5k": 20, "cifar10": 20}
        assert len({model.target for model in own if model.attack != CLEAN}) == 10
    assert len({model.seed for model in made}) == len({model.name for model in made}) == 80


def test_some_of_them_are_chosen_by_name() -> None:
    assert chosen([]) == models()
    some = chosen(["set-mnist5k-badnets-*", "set-mnist5k-*-s1000"])
    assert {model.attack for model in some} == {"badnets"}
    assert len(some) == len({model.name for model in some}) > 1
    with pytest.raises(UserError, match="no model of the calibration is called other-"):
        chosen(["set-mnist5k-*", "other-*"])


@pytest.mark.parametrize("model", models()[:8], ids=lambda model: model.name)
def test_their_parameters_are_whole(tmp_path: Path, model: Any) -> None:
    first, second = (model.params(PROJECT, attempt) for attempt in (0, 1))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(first))
    parameters.check(tmp_path / "params.yaml")
    assert first["train_backdoor"]["seed"] != second["train_backdoor"]["seed"]


def test_a_threshold_lies_in_the_widest_gap_that_separates() -> None:
    assert threshold([0.1, 0.2, 0.3, 0.4], [2.0, 3.0, 4.0, 5.0]) == pytest.approx(1.2)


def test_a_threshold_allows_one_false_alarm_of_twenty_and_no_more() -> None:
    clean = [number / 100 for number in range(19)]
    assert threshold([*clean, 5.0], [1.0] * 20) == pytest.approx((0.18 + 1.0) / 2)
    limit = threshold([*clean[:18], 5.0, 5.0], [1.0] * 10 + [6.0] * 10)
    assert limit == pytest.approx(5.5)


def test_there_is_none_where_scores_do_no_better_than_chance() -> None:
    assert threshold([1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5]) is None
    assert threshold([1.0, 2.0], []) is None
    assert threshold([], []) is None


def _rows(sign: str, weak: int = 0) -> list[dict[str, Any]]:
    """Of each half, twenty clean models with scores up to 0.2 and twenty attacked ones, fifteen of them with 5."""
    rows = []
    for half in HALVES:
        for number in range(40):
            attacked = number >= 20
            row = dict.fromkeys(COLUMNS, "")
            row |= {"model": f"{half}-{number}", "half": half, "data": "mnist5k", "sign": sign, "class": "3"}
            row |= {"attack": ATTACKS[number % 4] if attacked else CLEAN, "hit": attacked}
            row |= {"score": 5.0 if number >= 25 else number % 20 / 100, "weak": "too few" if number < weak else ""}
            rows.append(row)
    return rows


def test_rates_are_those_of_the_other_half() -> None:
    found = calibrated(pd.DataFrame(_rows("neural_cleanse", weak=2)), SignsParams()).signs["neural_cleanse"]
    assert found.threshold == pytest.approx((5.0 + 0.19) / 2)
    assert (found.true_alarms.count, found.true_alarms.of) == (15, 20)
    assert found.true_alarms.interval_95 == pytest.approx([0.531299, 0.888138], abs=1e-4)
    assert (found.false_alarms.count, found.abstained_clean.count, found.abstained_attacked.count) == (0, 2, 0)


def test_a_sign_that_always_abstained_is_not_calibrated() -> None:
    rows = _rows("changed_answers", weak=40)
    assert calibrated(pd.DataFrame(rows), SignsParams()).signs == {}


def test_everything_is_written(tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    pd.DataFrame([*_rows("neural_cleanse"), *_rows("target_vote")]).to_csv(scores, index=False)
    first, second = (write(scores, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    thresholds = read_thresholds(tmp_path / "first/thresholds.yaml")
    assert set(thresholds.signs) == {"neural_cleanse", "target_vote"}
    assert "20 models with a backdoor and 20 without" in thresholds.calibrated_on
    assert (tmp_path / "first/scores.png").read_bytes().startswith(b"\x89PNG")
    text = table(pd.DataFrame(_rows("neural_cleanse")), thresholds)
    assert "15 of 20 [53, 89 %]" in text
    assert (tmp_path / "first/rates.md").read_text().startswith("| sign | threshold |")


def _finished(folder: Path, name: str, attacked: bool) -> None:
    """A model as `make` leaves it, with a random network."""
    clean = raw(folder / name / "data/raw", images=240)
    of = "badnets" if attacked else CLEAN
    poisoned(folder / name / "data/poisoned", of, attack(of, clean[0]), clean)
    classifier_folder(folder / name / "models/backdoor")
    defense_folder(folder / name / "models/refine", folder / name / "models/backdoor")
    about = About(
        half="set",
        data="mnist5k",
        attack=of,
        target=1 if attacked else None,
        attempt=0,
        benign_accuracy=0.9,
    )
    write_json(folder / name / DONE, about.model_dump())


def test_finished_models_are_measured_once(tmp_path: Path) -> None:
    for name, attacked in (("one", True), ("two", False)):
        _finished(tmp_path / "home", name, attacked)
    brief = {"steps": 2, "mask_steps": 2, "rounds": 1, "least_moved": 0.0}
    params = SignsParams(settings={"target_vote": brief})
    out = tmp_path / "scores.csv"
    folders = finished(tmp_path / "home")
    measure(folders[:1], out, params, DEFAULTS, ["changed_answers"])
    assert [*pd.read_csv(out)["sign"]] == ["changed_answers"]
    with pytest.raises(UserError, match="there is no sign luck; there are changed_answers, "):
        measure(folders, out, params, DEFAULTS, ["luck"])
    measure(folders[:1], out, params, DEFAULTS)
    first = out.read_text()
    measure(folders, out, params, DEFAULTS)
    assert out.read_text().startswith(first)
    rows = pd.read_csv(out, keep_default_na=False)
    assert list(rows.columns) == list(COLUMNS)
    assert [*rows["model"]] == ["one"] * 3 + ["two"] * 3
    of = rows.set_index(["model", "sign"])
    assert of.loc[("one", "neural_cleanse"), "weak"] == "3 classes are too few to compare"
    assert of.loc[("one", "target_vote"), "target"] == "class-1"
    assert 0 <= float(of.loc[("one", "target_vote"), "score"]) <= 1
    assert of.loc[("one", "changed_answers"), "images"] == 120 + round(0.02 * 120)  # some have the trigger
    assert of.loc[("two", "changed_answers"), "images"] == 120
    assert (of.loc["two", "hit"] == "").all()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="refine calibrate make"):
        finished(tmp_path)
