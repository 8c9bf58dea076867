"""`none`: the data set as it was, and nothing to trigger."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from refine.attacks import none
from refine.backdoor import attacker_augmentation
from refine.backdoor.attacker_augmentation import AttackerAugmentation
from tiny import Poisoned, attack, poisoned, raw


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """A data set to which nothing was done."""
    folder = tmp_path_factory.mktemp("none")
    clean = raw(folder / "raw")
    return poisoned(folder / "poisoned", "none", attack("none", clean[0]), clean)


def test_training_images_and_labels_equal_the_raw_ones(result: Poisoned) -> None:
    assert torch.equal(result.poisoned_train.images, result.train.images)
    assert torch.equal(result.poisoned_train.labels, result.train.labels)
    assert not result.poisoned_train.flags("poisoned").any()
    assert not result.poisoned_train.flags("cover").any()


def test_no_test_image_is_triggered(result: Poisoned) -> None:
    assert len(result.triggered_test.images) == 0
    assert result.triggered_test.manifest.shards == []
    assert result.triggered_test.manifest.counts == [0, 0, 0]


def test_the_record_says_that_nothing_was_done(result: Poisoned) -> None:
    assert result.record.poisoned == result.record.cover == []
    assert result.record.rate_of_dataset == 0
    assert result.record.rate_of_classes is None
    assert attacker_augmentation.read(result.outputs.attack / "training") == AttackerAugmentation()


def test_there_is_a_preview_all_the_same(result: Poisoned) -> None:
    assert Path(result.outputs.preview).read_bytes().startswith(b"\x89PNG")


def test_it_takes_no_settings() -> None:
    with pytest.raises(ValidationError, match="it takes no settings"):
        none.Params.model_validate({"rate": 0.1})
