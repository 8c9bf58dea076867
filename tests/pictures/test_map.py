"""Maps of features."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from refine.pictures.map import draw_maps, embedded

NEAR = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
FAR = NEAR + 40
NOBODY = NEAR[:0]


def test_two_clusters_stay_two_clusters() -> None:
    places = embedded(torch.cat([NEAR, FAR]))
    inner = np.linalg.norm(places[:30] - places[:30].mean(axis=0), axis=1).max()
    assert np.linalg.norm(places[:30].mean(axis=0) - places[30:].mean(axis=0)) > inner


def test_the_same_features_give_the_same_picture(tmp_path: Path) -> None:
    labels = torch.arange(30) % 3, torch.arange(5) + 3
    for name in ("one.png", "two.png"):
        maps = [("before", NEAR, FAR[:5]), ("after", NEAR, NEAR[:5] + 1)]
        draw_maps(tmp_path / name, maps, labels, list("abcdefgh"))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or []}
    benign, triggered = {(31, 119, 180), (255, 127, 14), (44, 160, 44)}, {(214, 39, 40), (140, 86, 75)}
    assert benign | triggered <= colours


def test_without_an_attack_there_are_no_crosses(tmp_path: Path) -> None:
    labels = torch.arange(30) % 2
    draw_maps(tmp_path / "benign.png", [("before", NEAR, NOBODY)], (labels, labels[:0]), ["a", "b"])
    draw_maps(tmp_path / "attacked.png", [("before", NEAR, FAR[:1])], (labels, labels[:1]), ["a", "b"])
    black = []
    for name in ("benign.png", "attacked.png"):
        with Image.open(tmp_path / name) as picture:
            legend = picture.convert("L").crop((picture.width * 3 // 4, 0, *picture.size))
            black.append(np.asarray(legend) < 60)
    assert black[1].sum() > black[0].sum()


def test_many_classes_have_a_colour_each(tmp_path: Path) -> None:
    labels = torch.arange(30) % 15
    draw_maps(tmp_path / "many.png", [("before", NEAR, NOBODY)], (labels, labels[:0]), list("abcdefghijklmno"))
    with Image.open(tmp_path / "many.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or []}
    assert {tuple(round(255 * part) for part in colour) for colour in mpl.color_sequences["tab20"][:15]} <= colours


def test_of_hardly_any_points_there_is_an_empty_map(tmp_path: Path) -> None:
    draw_maps(tmp_path / "few.png", [("few", NEAR[:3], NOBODY)], (torch.arange(3), torch.arange(0)), ["a", "b", "c"])
    assert (tmp_path / "few.png").stat().st_size > 0
