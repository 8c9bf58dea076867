"""The retuning attack of a finished run, as it is recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recorded_runs import name, record
from refine.defending.protocol.defense import NoDefense
from refine.models import classifier as classifiers
from refine_lab.projects import CLASSIFIER
from refine_lab.recording import defender, retuning
from refine_lab.recording.clean import CleanSystems
from refine_lab.recording.measuring import Bench, bench
from refine_lab.runs.record import AfterRetuning, Record, Retuned, Retuning, Shares
from refine_lab.runs.recorded import Run
from support import TINY_PARAMS, write_params


@pytest.fixture(scope="module")
def images(finished: Path) -> Bench:
    """The test images of the finished run."""
    return bench(finished)


def _clean(project: Path) -> CleanSystems:
    """The run's own classifier in the place of a clean one, without a defense."""
    return CleanSystems("a run", NoDefense(classifiers.load(project / CLASSIFIER)[0]), None)


def test_where_the_clean_run_has_another_defense_its_classifier_stands_beside(finished: Path, images: Bench) -> None:
    made = retuning.measured(finished, "refine", _clean(finished), images)
    assert made is not None
    assert (made.clean_run, made.clean_defended) == ("a run", False)
    assert made.no_defense.clean == made.no_defense.attacked
    for own in made.defended.values():
        assert own.clean == made.no_defense.clean


def _recorded(defense: str, retuning: Retuning | None, classifier: str = "own", attack: str = "badnets") -> Run:
    outputs = {"data/raw/train": "a", "data/raw/test": "b", "models/backdoor": classifier}
    content = record(name(attack=attack, defense=defense), retuning=retuning, outputs=outputs)
    return Run(Path(str(content.name)), content, {}, {})


def test_a_bare_classifier_that_another_run_has_retuned_is_not_retuned_again(finished: Path, images: Bench) -> None:
    clean = _clean(finished)
    made = retuning.measured(finished, "refine", clean, images)
    assert made is not None
    own, others = made.model_copy(update={"clean_run": "none"}), _recorded("none", None, "clean", attack="none")
    runs = {"none": others, "one": _recorded("shrinkpad", own)}
    clean = CleanSystems("none", clean.bare, None)
    outputs = runs["one"].record.outputs
    known = retuning.already_measured(runs, outputs, clean)
    assert known == made.no_defense
    assert retuning.measured(finished, "refine", clean, images, known) == own
    assert retuning.already_measured(runs, {**outputs, "models/backdoor": "another"}, clean) is None
    assert retuning.already_measured(runs, outputs, None) is None
    settings = own.model_copy(update={"settings": {**own.settings, "epochs": 6}})
    assert retuning.already_measured({**runs, "one": _recorded("shrinkpad", settings)}, outputs, clean) is None
    another = {**runs, "another": _recorded("none", None, "another", attack="none")}
    assert retuning.already_measured(another, outputs, CleanSystems("another", clean.bare, None)) is None


def test_the_mean_is_that_of_the_draws(finished: Path, images: Bench) -> None:
    made = retuning.measured(finished, "refine", None, images)
    assert made is not None
    after = made.no_defense.attacked
    for figure, mean in after.mean.model_dump().items():
        assert mean == pytest.approx(sum(getattr(each, figure) for each in after.each) / 5, abs=1e-6)
    assert made.no_defense.clean is None
    assert made.no_defense.asr_over_clean is None


def test_what_cannot_be_retuned_is_told_and_left_out(
    repo: Path, images: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(repo / "data/poisoned/train")
    assert retuning.measured(repo, "refine", None, images) is None
    assert "retuning is left out: " in caplog.text


def _after(asr: float) -> AfterRetuning:
    shares = Shares(benign_accuracy=0.9, attack_success_rate=asr, robust_accuracy=0.1)
    return AfterRetuning(mean=shares, each=[shares])


def _retuned(attacked: float, clean: float | None) -> Retuned:
    return Retuned(attacked=_after(attacked), clean=None if clean is None else _after(clean))


def _run(retuning: Retuning | None) -> Run:
    return Run(Path(), record(name(), retuning=retuning), {"no_defense": {}, "refine": {}}, {})


def test_a_run_tells_the_rate_after_retuning_and_how_much_it_is_above_a_clean_one() -> None:
    made = Retuning(
        settings={},
        images=77,
        poisoned=5,
        clean_run="a run",
        clean_defended=True,
        no_defense=_retuned(1.0, 0.25),
        defended={"all": _retuned(0.75, 0.25), "transform": _retuned(0.5, None)},
    )
    run = _run(made)
    assert run.figure("no_defense", "asr_retuned") == 1.0
    assert run.figure("refine", "asr_retuned") == 0.75
    assert run.figure("refine", "asr_retuned_over_clean") == 0.5
    assert (run.figure("refine", "ba_retuned"), run.figure("refine", "robust_retuned")) == (0.9, 0.1)
    assert run.retuned("refine", "transform") == made.defended["transform"]
    assert run.retuned("refine", "nothing") is None


def test_runs_without_it_are_still_read() -> None:
    run = _run(None)
    assert run.figure("refine", "asr_retuned") is None
    assert run.figure("refine", "asr_retuned_over_clean") is None
    content = record(name()).model_dump()
    del content["retuning"], content["defender"]
    assert Record.model_validate(content) == record(name())


def test_the_defender_of_refine_has_its_share_of_the_images(repo: Path) -> None:
    params = {**TINY_PARAMS, "train_refine": {**TINY_PARAMS["train_refine"], "unlabeled_fraction": 0.25}}
    write_params(repo, params)
    assert defender.defender(repo, "refine").images == 12
