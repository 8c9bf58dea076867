"""Maps of features."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from refine.evaluation.feature_map import Legend, draw_maps, embedded

NEAR = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
FAR = NEAR + 40
NOBODY = NEAR[:0]


def test_two_clusters_stay_two_clusters() -> None:
    places = embedded(torch.cat([NEAR, FAR]))
    inner = np.linalg.norm(places[:30] - places[:30].mean(axis=0), axis=1).max()
    assert np.linalg.norm(places[:30].mean(axis=0) - places[30:].mean(axis=0)) > inner


def _colors(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return {color for _, color in picture.convert("RGB").getcolors(2**24) or []}


def _dark(path: Path, part: slice) -> NDArray[np.bool_]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))[:, part] < 60


def test_the_same_features_give_the_same_picture(tmp_path: Path) -> None:
    legend = Legend(list("abcdefgh"), torch.arange(30) % 3, torch.arange(5) + 3, target=0)
    for name in ("one.png", "two.png"):
        draw_maps(tmp_path / name, [("before", NEAR, FAR[:5]), ("after", NEAR, NEAR[:5] + 1)], legend)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()
    benign, triggered = {(31, 119, 180), (255, 127, 14), (44, 160, 44)}, {(214, 39, 40), (140, 86, 75)}
    assert benign | triggered <= _colors(tmp_path / "one.png")


def test_a_point_shows_through_the_cross_of_its_triggered_image(tmp_path: Path) -> None:
    """Both lie at the very same place, the dot above."""
    legend = Legend(["a", "b"], torch.zeros(30, dtype=torch.int64), torch.ones(30, dtype=torch.int64))
    draw_maps(tmp_path / "a.png", [("both", NEAR, NEAR)], legend)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))[:, :560].astype(int)
    blue, orange = (step * (pixels[..., 2] - pixels[..., 0]) > 60 for step in (1, -1))
    assert blue.sum() > 30 * 10  # the dots
    assert orange.sum() > 30 * 10  # the arms of the crosses


def test_without_an_attack_there_are_neither_crosses_nor_a_target(tmp_path: Path) -> None:
    labels = torch.arange(30) % 2
    draw_maps(tmp_path / "benign.png", [("before", NEAR, NOBODY)], Legend(["a", "b"], labels, labels[:0]))
    draw_maps(tmp_path / "attacked.png", [("before", NEAR, FAR[:1])], Legend(["a", "b"], labels, labels[:1]))
    draw_maps(tmp_path / "aimed.png", [("before", NEAR, FAR[:1])], Legend(["a", "b"], labels, labels[:1], target=1))
    legends = [_dark(tmp_path / f"{name}.png", slice(-150, None)).sum() for name in ("benign", "attacked", "aimed")]
    assert legends == sorted(set(legends))
    inside = [_dark(tmp_path / f"{name}.png", slice(10, -170))[40:-40].sum() for name in ("attacked", "aimed")]
    assert inside[1] > inside[0]  # the star


@pytest.mark.parametrize(("classes", "named"), [(15, 15), (43, 20)])
def test_many_classes_have_a_color_each_as_far_as_there_are_colors(tmp_path: Path, classes: int, named: int) -> None:
    features, labels = torch.cat([NEAR, FAR]), torch.arange(60) % classes
    names = [f"class {label}" for label in range(classes)]
    draw_maps(tmp_path / "many.png", [("before", features, NOBODY)], Legend(names, labels, labels[:0]))
    wanted = {tuple(round(255 * part) for part in color) for color in mpl.color_sequences["tab20"][:named]}
    assert wanted <= _colors(tmp_path / "many.png")


def test_names_that_matplotlib_would_leave_out_or_read_as_formulas_are_drawn(tmp_path: Path) -> None:
    labels = torch.arange(30) % 2
    for name, classes in (("plain", ["", ""]), ("odd", ["_hidden", "$\\frac$"])):
        draw_maps(tmp_path / f"{name}.png", [("before", NEAR, NOBODY)], Legend(classes, labels, labels[:0]))
    shown = [_dark(tmp_path / f"{name}.png", slice(-130, None)).sum() for name in ("plain", "odd")]
    assert shown[1] > shown[0]


def test_of_hardly_any_points_there_is_an_empty_map(tmp_path: Path) -> None:
    legend = Legend(["a", "b", "c"], torch.arange(3), torch.arange(0))
    draw_maps(tmp_path / "few.png", [("few", NEAR[:3], NOBODY)], legend)
    assert (tmp_path / "few.png").stat().st_size > 0
