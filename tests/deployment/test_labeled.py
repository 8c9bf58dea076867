"""Labeled images: which class they are of, and how often both models are right on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refine.core.errors import UserError
from refine.deployment.labeled import accuracies, labeled, refuse_shared
from refine.deployment.model import load
from support import synthetic
from tiny import CPU, classifier_card, classifier_folder, defense_folder, pack


def _folders(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), (number, 0, 0)).save(folder / name / "one.png")


@pytest.mark.parametrize("names", [["class-0", "class-2", "class-1"], ["a", "b", "c"], ["class-2"]])
def test_class_folders_are_the_classes_by_name_or_in_their_order(names: list[str], tmp_path: Path) -> None:
    _folders(tmp_path, names)
    found = labeled(tmp_path, classifier_card())
    assert [file.parent.name for file in found.files] == sorted(names)
    assert found.labels.tolist() == ([2] if len(names) == 1 else [0, 1, 2])
    assert found.images.shape == (len(names), 3, 16, 16)


@pytest.mark.parametrize(
    ("names", "said"), [(["a", "b"], "has 2 class folders, the model 3 classes"), ([], "holds no images")]
)
def test_other_folders_are_refused(names: list[str], said: str, tmp_path: Path) -> None:
    _folders(tmp_path, names)
    with pytest.raises(UserError, match=said):
        labeled(tmp_path, classifier_card())


def test_both_models_are_asked(tmp_path: Path) -> None:
    """Each image lies in the folder of the class that one of the models gives it, or of another one."""
    classifier_folder(tmp_path / "defended/classifier")
    defense_folder(tmp_path / "defended/defense", tmp_path / "defended/classifier")
    pack(tmp_path / "defended", "0" * 64)
    model = load(tmp_path / "defended", device="cpu")
    images = synthetic(30)[0]
    before, after = ([each.label for each in asked.classify(images)] for asked in (model.undefended, model))
    for row, image in enumerate(images):
        folder = tmp_path / f"check/class-{before[row] if row < 20 else after[row]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(folder / f"{row}.png")
    found = accuracies(tmp_path / "defended", labeled(tmp_path / "check", classifier_card()), CPU)
    agree = [one == other for one, other in zip(before, after, strict=True)]
    assert found.images == 30
    assert found.delivered == 20 + sum(agree[20:])
    assert found.defended == 10 + sum(agree[:20])
    assert found.drop == pytest.approx((found.delivered - found.defended) / 30)
    assert not all(agree)


def test_an_image_that_the_defense_is_trained_with_is_refused(tmp_path: Path) -> None:
    _folders(tmp_path / "check", ["a", "b", "c"])
    checked = labeled(tmp_path / "check", classifier_card())
    other, same = tmp_path / "other.png", tmp_path / "same.png"
    Image.new("RGB", (20, 20), (9, 0, 0)).save(other)
    refuse_shared(checked, [other])
    same.write_bytes(checked.files[1].read_bytes())
    with pytest.raises(UserError, match=r"b/one.png is also .*same.png"):
        refuse_shared(checked, [other, same])
