"""The work of poison-dataset that is the same for every attack, shown with attacks made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from refine.attacks import badnets
from refine.backdoor import attacker_augmentation
from refine.backdoor.attacker_augmentation import AttackerAugmentation, Distortion
from refine.core.errors import UserError
from refine.poisoning.attack import Attack, Chosen, Setting, TargetedParams
from refine.shards.reading.reader import Split
from refine.shards.reading.tensors import load_tensors
from tiny import Poisoned, attack, files_of, poisoned, raw


class Shifting(Attack[TargetedParams]):
    """All-to-all with covers: a poisoned image of label y gets y + 1; what it is told is written into the images."""

    def choose(self, labels: Tensor, generator: Generator) -> Chosen:
        rows = torch.randperm(len(labels), generator=generator)
        return Chosen(rows[:7], rows[7:12])

    def relabel(self, labels: Tensor) -> Tensor:
        return (labels + 1) % self.setting.num_classes

    def poison(self, images: Tensor, order: Tensor) -> Tensor:
        return torch.ones_like(images) * (order + 100).view(-1, 1, 1, 1).to(torch.uint8)

    def cover(self, images: Tensor, order: Tensor) -> Tensor:
        return torch.ones_like(images) * (order + 200).view(-1, 1, 1, 1).to(torch.uint8)

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        return torch.ones_like(images) * (keys + 50).view(-1, 1, 1, 1).to(torch.uint8)

    def attacker_augmentation(self) -> AttackerAugmentation:
        return AttackerAugmentation(poisoned=Distortion(degrees=10.0))

    def initial_weights(self) -> dict[str, Tensor] | None:
        return {"a": torch.arange(3.0)}


class OtherTestTrigger(badnets.Attack):
    """BadNets whose test trigger is drawn elsewhere, while its training trigger is unchanged."""

    def poison(self, images: Tensor, order: Tensor) -> Tensor:
        return super().trigger(images, order)

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        return super().trigger(images, keys).flip(3)


class Failing(badnets.Attack):
    """BadNets that cannot be applied to test images."""

    def trigger(self, images: Tensor, keys: Tensor) -> Tensor:
        raise UserError("this attack cannot be applied")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """Clean splits: 60 training and 30 test images of three classes."""
    return raw(tmp_path_factory.mktemp("clean") / "raw")


@pytest.fixture(scope="module")
def shifted(clean: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """The all-to-all attack with covers, applied."""
    return poisoned(tmp_path_factory.mktemp("shifted"), "badnets", Shifting(TargetedParams(), Setting(3, 16)), clean)


def test_poisoned_and_cover_images_get_their_positions_in_the_selection(shifted: Poisoned) -> None:
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(1)).tolist()
    for place in range(12):
        value = 100 + place if place < 7 else 200 + place - 7
        assert bool((shifted.poisoned_train.images[rows[place]] == value).all())
    assert shifted.record.poisoned == sorted(rows[:7])
    assert shifted.record.cover == sorted(rows[7:12])


def test_cover_images_keep_their_label_and_are_flagged(shifted: Poisoned) -> None:
    for row, info in enumerate(shifted.poisoned_train.infos):
        label = int(shifted.train.labels[row])
        chosen = row in shifted.record.poisoned
        assert info["poisoned"] is chosen
        assert info["cover"] is (row in shifted.record.cover)
        assert info["original_label"] == label
        assert info["given_label"] == int(shifted.poisoned_train.labels[row]) == ((label + 1) % 3 if chosen else label)


def test_all_to_all_triggers_every_test_image_by_its_key(shifted: Poisoned) -> None:
    assert torch.equal(shifted.triggered_test.keys, shifted.test.keys)
    assert torch.equal(shifted.triggered_test.labels, (shifted.test.labels + 1) % 3)
    assert torch.equal(shifted.triggered_test.images[:, 0, 0, 0], (shifted.test.keys + 50).to(torch.uint8))


def test_the_origin_of_each_image_is_kept(shifted: Poisoned) -> None:
    for before, after in ((shifted.train, shifted.poisoned_train), (shifted.test, shifted.triggered_test)):
        for info, after_info in zip(before.infos, after.infos, strict=True):
            assert info.items() <= after_info.items()


def test_what_acts_during_training_is_written_with_its_weights(shifted: Poisoned) -> None:
    folder = shifted.outputs.attack / "training"
    part = attacker_augmentation.read(folder)
    assert part.poisoned == Distortion(degrees=10.0)
    assert part.benign is None
    assert part.initial_weights_sha256 is not None
    weights = load_tensors(folder / attacker_augmentation.WEIGHTS, part.initial_weights_sha256, "")
    assert torch.equal(weights["a"], torch.arange(3.0))


def test_without_initial_weights_no_file_of_them_is_written(clean: tuple[Split, Split], tmp_path: Path) -> None:
    poisoned(tmp_path, "badnets", attack("badnets", clean[0]), clean)
    assert list(files_of(tmp_path / "attack/training")) == [attacker_augmentation.NAME]


def test_another_test_trigger_leaves_everything_that_training_reads_alone(
    clean: tuple[Split, Split], tmp_path: Path
) -> None:
    poisoned(tmp_path / "first", "badnets", attack("badnets", clean[0]), clean)
    poisoned(tmp_path / "second", "badnets", OtherTestTrigger(badnets.Params(), Setting(3, 16)), clean)
    first, second = files_of(tmp_path / "first"), files_of(tmp_path / "second")
    differ = {name.split("/")[0] for name in first if first[name] != second[name]}
    assert first.keys() == second.keys()
    assert differ == {"test", "preview.png"}


def test_the_clean_splits_in_memory_are_not_changed(clean: tuple[Split, Split], tmp_path: Path) -> None:
    before = [split.images.clone() for split in clean] + [split.labels.clone() for split in clean]
    poisoned(tmp_path, "badnets", attack("badnets", clean[0], rate=0.5), clean)
    after = [split.images for split in clean] + [split.labels for split in clean]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_an_attack_that_fails_leaves_the_outputs_of_the_last_run(clean: tuple[Split, Split], tmp_path: Path) -> None:
    poisoned(tmp_path, "badnets", attack("badnets", clean[0]), clean)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match="cannot be applied"):
        poisoned(tmp_path, "badnets", Failing(badnets.Params(), Setting(3, 16)), clean)
    assert files_of(tmp_path) == before


def test_no_output_appears_when_writing_breaks_off(
    clean: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("refine.poisoning.preview.draw_grids", broken)
    with pytest.raises(OSError, match="no space"):
        poisoned(tmp_path, "badnets", attack("badnets", clean[0]), clean)
    assert files_of(tmp_path) == {}


def test_triggered_images_show_the_trigger_where_the_attack_puts_it_and_leave_out_the_target_class(
    clean: tuple[Split, Split], tmp_path: Path
) -> None:
    result = poisoned(tmp_path, "badnets", attack("badnets", clean[0]), clean)
    others = [key for key, label in zip(result.test.keys.tolist(), result.test.labels.tolist(), strict=True) if label]
    assert result.triggered_test.keys.tolist() == others
    assert len(others) == 20
    for key, image in zip(others, result.triggered_test.images, strict=True):
        before = result.test.images[key]
        assert torch.equal(image[:, :14], before[:, :14])
        assert torch.equal(image[:, :, :14], before[:, :, :14])
        assert not torch.equal(image[:, 14:, 14:], before[:, 14:, 14:])
