"""What stands under the images of the gallery, and what the map of features is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from refine.defending.protocol.defense import Defense, NoDefense
from refine.evaluation import pictures
from refine.evaluation.answers import answers_of_all
from refine.evaluation.feature_map import Legend
from refine.evaluation.metrics import Answers
from refine.evaluation.pictures import Systems, draw_features, draw_gallery
from refine.evaluation.test_sets import TestSets, choose
from refine.evaluation.wasserstein import Both, Looks, Seen
from refine.pictures.grid import Grid
from systems import Mirrored, Negative
from tiny import CPU, attack, classifier, defense, poisoned, raw

CLASSES = 4


def _tests(folder: Path, name: str, **settings: Any) -> TestSets:
    clean = raw(folder / "raw", images=40, classes=CLASSES)
    made = poisoned(folder / "poisoned", name, attack(name, clean[0], **settings), clean)
    return TestSets(made.test, made.triggered_test)


def _gallery(made: Defense, tests: TestSets, monkeypatch: pytest.MonkeyPatch) -> tuple[Grid, Answers, Answers]:
    """The grid that is drawn, and the answers of both systems."""
    drawn: list[Grid] = []
    monkeypatch.setattr(pictures, "draw_grids", lambda _path, grid, **_: drawn.append(grid))
    answered = answers_of_all({"no_defense": NoDefense(made.classifier), "another": made}, tests, 8, CPU)
    draw_gallery(Path("gallery.png"), tests, Systems(answered, made), 3, CPU)
    return drawn[0], answered["no_defense"], answered["another"]


def _refine() -> Defense:
    return defense(classifier(CLASSES), CLASSES)


@pytest.mark.parametrize(
    ("kind", "title", "second"),
    [("refine", "REFINE", "transformed"), (Negative, "Negative", "transformed"), (Mirrored, "Mirror", "as it is")],
    ids=["refine", "purifies", "neither"],
)
def test_each_row_says_what_the_system_that_sees_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, title: str, second: str
) -> None:
    tests = _tests(tmp_path, "badnets")
    made = _refine() if kind == "refine" else kind(classifier(CLASSES))
    grid, before, after = _gallery(made, tests, monkeypatch)
    assert [row for row, _ in grid.rows] == ["clean", f"clean, {second}", "triggered", f"triggered, {second}"]
    assert [caption for caption, _ in grid.captions] == ["no defense:", f"{title}:"] * 2
    shown = [int(heading.removeprefix("class-")) for heading in grid.columns]
    places = [tests.truth.behind.tolist().index(label) for label in shown]
    behind = tests.truth.clean_rows[places]
    sources = before.benign[behind], after.benign[behind], before.triggered[places], after.triggered[places]
    for (_, captions), answers in zip(grid.captions, sources, strict=True):
        told = [caption.text[2:] for caption in captions]
        assert told == [f"class-{answer}" for answer in answers.tolist()]


def test_images_are_shown_as_the_defense_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = _tests(tmp_path, "badnets")
    for made in (Negative(classifier(CLASSES)), Mirrored(classifier(CLASSES))):
        images = [images for _, images in _gallery(made, tests, monkeypatch)[0].rows]
        for before, after in (images[:2], images[2:]):
            assert torch.equal(after, 255 - before if isinstance(made, Negative) else before)
        assert not torch.equal(images[0], images[2])


def test_a_sign_and_a_color_tell_right_wrong_and_wanted_answers_apart() -> None:
    said, labels, given = torch.tensor([1, 2, 0]), torch.tensor([1, 1, 1]), torch.zeros(3, dtype=torch.int64)
    captions = pictures._captions(said, labels, given, ["cat", "dog", "bird"])
    assert [caption.text for caption in captions] == ["✓ dog", "✗ bird", "◎ cat"]
    assert len({caption.color for caption in captions}) == 3


def test_the_key_explains_the_signs_that_can_occur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attacked, *_ = _gallery(_refine(), _tests(tmp_path / "attacked", "badnets"), monkeypatch)
    benign, *_ = _gallery(_refine(), _tests(tmp_path / "benign", "none"), monkeypatch)
    assert attacked.key == "✓ right    ✗ wrong    ◎ wrong, and what the attacker wants"
    assert benign.key == "✓ right    ✗ wrong"
    assert [title for title, _ in benign.rows] == ["clean", "clean, transformed"]
    assert not any("◎" in caption.text for _, captions in benign.captions for caption in captions)


@pytest.mark.parametrize(
    ("name", "settings", "target"),
    [("badnets", {"target": 2}, 2), ("badnets_square", {}, None), ("none", {}, None)],
    ids=["one target", "all to all", "no attack"],
)
def test_the_map_is_told_the_target_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], target: int | None
) -> None:
    tests, told = _tests(tmp_path, name, **settings), []
    monkeypatch.setattr(pictures, "draw_maps", lambda _path, _maps, legend: told.append(legend))
    chosen = choose(tests.truth, 4)
    seen = Seen(torch.zeros(8, 2), torch.zeros(8, CLASSES))
    draw_features(tmp_path / "map.png", Looks(chosen, Both(seen, seen), None), "REFINE", tests)
    classes = tests.clean.manifest.classes
    assert told == [Legend(classes, chosen.mapped_labels, chosen.triggered_labels, target)]
