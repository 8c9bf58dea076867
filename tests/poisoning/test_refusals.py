"""Attacks that would prove nothing are refused, whichever they are, before anything is written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Generator, Tensor

from refine.attacks import badnets
from refine.backdoor.attacker_augmentation import AttackerAugmentation, Distortion
from refine.core.errors import UserError
from refine.core.params import Section
from refine.poisoning.attack import AnyAttack, Attack, Chosen, Setting
from refine.shards.reading.reader import Split, read_split
from support import synthetic, write_split
from tiny import attack, files_of, poisoned, raw

Clean = tuple[Split, Split]


class Params(Section):
    """Which images are triggered and on how many of them it shows.

    Attributes:
        rows: training rows that are poisoned.
        cover: rows that are covers.
        relabels: whether poisoned images get another label.
        marks: the first so many of the poisoned, the cover and the test images that change.
        acts_in_training: the trigger comes while the classifier is trained.
    """

    rows: list[int] = Field(default=[0, 1, 2, 3])
    cover: list[int] = Field(default=[])
    relabels: bool = True
    marks: list[int] = Field(default=[100, 100, 100])
    acts_in_training: bool = False


class Stated(Attack[Params]):
    """Does what its settings say."""

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        return Chosen(torch.tensor(self.params.rows, dtype=torch.int64), torch.tensor(self.params.cover).long())

    def relabel(self, labels: Tensor) -> Tensor:
        return super().relabel(labels) if self.params.relabels else labels

    def _marked(self, images: Tensor, numbers: Tensor, first: int) -> Tensor:
        return images + (numbers < first).view(-1, 1, 1, 1).to(torch.uint8)

    def poison(self, images: Tensor, order: Tensor) -> Tensor:
        return self._marked(images, order, self.params.marks[0])

    def cover(self, images: Tensor, order: Tensor) -> Tensor:
        return self._marked(images, order, self.params.marks[1])

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        return self._marked(images, keys, self.params.marks[2])

    def attacker_augmentation(self) -> AttackerAugmentation:
        return (
            AttackerAugmentation(poisoned=Distortion(degrees=10.0))
            if self.params.acts_in_training
            else AttackerAugmentation()
        )


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """60 training and 30 test images of three classes, by turns."""
    return raw(tmp_path_factory.mktemp("clean") / "raw")


def _stated(**settings: Any) -> AnyAttack:
    return Stated(Params.model_validate(settings), Setting(3, 16, name="stated"))


def _refusal(folder: Path, of: AnyAttack, clean: Clean) -> str:
    """The sentence; nothing may have been written."""
    with pytest.raises(UserError) as refused:
        poisoned(folder, "badnets", of, clean)
    assert files_of(folder) == {}
    return str(refused.value)


@pytest.mark.parametrize("settings", [{}, {"cover": [4, 5]}, {"rows": [], "relabels": False}])
def test_a_valid_poisoned_data_set_passes_silently(
    clean: Clean, tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    with caplog.at_level(logging.INFO, "refine.poisoning"):
        poisoned(tmp_path, "badnets", _stated(**settings), clean)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("marks", "what"),
    [
        ([0, 9, 99], "none of the 4 poisoned training"),
        ([9, 0, 99], "none of the 2 cover"),
        ([9, 9, 0], "none of the 20 triggered test"),
    ],
)
def test_a_trigger_that_changes_no_image_is_refused(clean: Clean, tmp_path: Path, marks: list[int], what: str) -> None:
    message = _refusal(tmp_path, _stated(cover=[4, 5], marks=marks), clean)
    assert f"changes {what} images by a whole level" in message
    assert message.endswith("; make it stronger in attacks.stated")


def test_a_blend_too_faint_to_show_is_refused(clean: Clean, tmp_path: Path) -> None:
    message = _refusal(tmp_path, attack("blended", clean[0], alpha=0.001), clean)
    assert message.endswith("make it stronger in attacks.blended")


def test_images_that_look_so_already_are_counted_and_let_through(
    clean: Clean, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned(tmp_path, "badnets", _stated(marks=[3, 9, 12]), clean)
    shown = [key for key in clean[1].keys[clean[1].labels != 0].tolist() if key < 12]
    assert caplog.messages == [
        "the trigger does not change 1 of 4 poisoned training images",
        f"the trigger does not change {20 - len(shown)} of 20 triggered test images",
    ]


def test_a_trigger_that_acts_while_the_classifier_is_trained_need_not_show_before(clean: Clean, tmp_path: Path) -> None:
    poisoned(tmp_path / "made", "badnets", _stated(marks=[0, 9, 99], acts_in_training=True), clean)
    message = _refusal(tmp_path / "refused", _stated(marks=[0, 9, 0], acts_in_training=True), clean)
    assert "none of the 20 triggered test images" in message


def test_a_rate_that_leaves_no_benign_image_is_refused(clean: Clean, tmp_path: Path) -> None:
    message = _refusal(tmp_path, attack("badnets", clean[0], rate=1.0), clean)
    assert message == "all 60 training images would have a trigger and none would be benign; lower attacks.badnets.rate"
    covered = _stated(rows=list(range(20)), cover=list(range(20, 60)))
    assert "all 60 training images would have a trigger" in _refusal(tmp_path, covered, clean)


def test_a_class_that_no_training_image_is_left_of_is_named(clean: Clean, tmp_path: Path) -> None:
    message = _refusal(tmp_path, attack("badnets_grid", clean[0], rate=1.0), clean)
    assert message == (
        "poisoning would leave no training image with the label class-1 (nor any of 1 other classes); "
        "lower attacks.badnets_grid.rate"
    )
    of_two = [row for row, label in enumerate(clean[0].labels.tolist()) if label == 2]
    message = _refusal(tmp_path, _stated(rows=of_two), clean)
    assert message == "poisoning would leave no training image with the label class-2; lower attacks.stated.rate"


def test_a_clean_label_attack_may_take_all_of_its_class(clean: Clean, tmp_path: Path) -> None:
    poisoned(tmp_path, "sig", attack("sig", clean[0], rate=1.0), clean)


def test_a_class_without_training_images_was_lost_before(tmp_path: Path) -> None:
    for name, count in (("train", 60), ("test", 30)):
        write_split(tmp_path / "raw" / name, *synthetic(count), classes=4)
    clean = read_split(tmp_path / "raw/train"), read_split(tmp_path / "raw/test")
    poisoned(tmp_path / "made", "badnets", attack("badnets", clean[0]), clean)
    message = _refusal(tmp_path / "refused", attack("sig", clean[0], target=3), clean)
    assert message == "there is no training image of the target class to poison; change attacks.sig.target"


def test_a_test_set_without_an_image_to_trigger_is_refused(clean: Clean, tmp_path: Path) -> None:
    write_split(tmp_path / "test", clean[1].images[clean[1].labels == 0], torch.zeros(10, dtype=torch.int64))
    only_target = clean[0], read_split(tmp_path / "test")
    message = _refusal(tmp_path / "made", attack("badnets", clean[0]), only_target)
    assert message == (
        "the trigger would lead each of the 10 test images to its own class; "
        "choose another attacks.badnets.target, or add test images of other classes"
    )
    poisoned(tmp_path / "other", "badnets", attack("badnets", clean[0], target=1), only_target)


def test_an_attack_that_poisons_nothing_but_triggers_is_refused(clean: Clean, tmp_path: Path) -> None:
    assert _refusal(tmp_path, _stated(rows=[]), clean) == (
        "the attack poisons none of the 60 training images; change attacks.stated"
    )


def test_a_refusal_leaves_the_outputs_of_the_last_run(clean: Clean, tmp_path: Path) -> None:
    poisoned(tmp_path, "badnets", attack("badnets", clean[0]), clean)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match="changes none of the"):
        poisoned(tmp_path, "blended", attack("blended", clean[0], alpha=0.001), clean)
    assert files_of(tmp_path) == before


def test_the_name_in_messages_is_that_of_the_settings(clean: Clean) -> None:
    with pytest.raises(UserError, match=r"lower attacks\.badnets\.patch_side$"):
        attack("badnets", clean[0], patch_side=17)
    assert badnets.Attack(badnets.Params(), Setting(3, 16)).setting.section == "attacks.*"
