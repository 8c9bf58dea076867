"""The folder of a split, its groups, and its comparison with the truth."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from refine.core.errors import UserError
from refine.core.registry import SPLITS, component, names
from refine.shards.reading.reader import read_split
from refine.splitting import folder as stored
from refine.splitting.evaluate import auroc, evaluate_split
from refine.splitting.groups import CLEAN, NAMES, POISONED, UNCERTAIN, Sizes, ranked, sizes
from refine.splitting.params import SplitParams
from tiny import Poisoned, attack, files_of, poisoned, raw, split_folder

SMALL = {"sd": {"recipe": {"epochs": 3, "batch_size": 16}, "draws": 1}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """60 training images, 6 poisoned and 12 cover images among them."""
    folder = tmp_path_factory.mktemp("data")
    clean = raw(folder / "raw")
    return poisoned(folder / "poisoned", "adaptive_patch", attack("adaptive_patch", clean[0]), clean)


@pytest.fixture(scope="module", params=names(SPLITS))
def made(request: pytest.FixtureRequest, data: Poisoned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of every split of the room."""
    name = str(request.param)
    out = tmp_path_factory.mktemp("made") / name
    split_folder(out, data.outputs.train, name, **SMALL.get(name, {}))
    return out


def test_the_least_values_are_clean_and_the_largest_poisoned_and_ties_go_by_place() -> None:
    fct = torch.tensor([3.0, 0.0, 0.0, 5.0, 0.0, 5.0, 5.0])
    assert ranked(fct, Sizes(2, 2)).tolist() == [
        UNCERTAIN, CLEAN, CLEAN, UNCERTAIN, UNCERTAIN, POISONED, POISONED
    ]  # fmt: skip


@pytest.mark.parametrize(("samples", "clean", "poison"), [(60, 12, 3), (50_000, 10_000, 2500), (39, 7, 1)])
def test_groups_have_the_published_sizes(samples: int, clean: int, poison: int) -> None:
    assert sizes(samples, SplitParams()) == Sizes(clean, poison)
    assert ranked(torch.rand(samples), Sizes(clean, poison)).bincount().tolist() == [
        clean, samples - clean - poison, poison
    ]  # fmt: skip


def test_every_split_can_be_read_again(made: Path, data: Poisoned) -> None:
    module = component(SPLITS, made.name, "a test")
    card = stored.read_card(made, data.outputs.train)
    assert module.Params.model_validate(card.settings)
    rows = stored.read_samples(made, card)
    train = data.poisoned_train
    assert torch.equal(rows.keys, train.keys)
    assert torch.equal(rows.labels, train.labels)
    assert [int((rows.groups == group).sum()) for group in range(3)] == [12, 45, 3]
    assert card.counts == dict(zip(NAMES, [12, 45, 3], strict=True))
    assert card.thresholds == [rows.fct[rows.groups == CLEAN].max(), rows.fct[rows.groups == POISONED].min()]
    assert card.thresholds[0] <= card.thresholds[1]
    assert stored.read_epochs(made, card).shape[1] == 60


def test_every_split_is_the_same_bytes_each_time(made: Path, data: Poisoned, tmp_path: Path) -> None:
    split_folder(tmp_path / made.name, data.outputs.train, made.name, **SMALL.get(made.name, {}))
    assert files_of(tmp_path / made.name) == files_of(made)


def test_every_split_is_compared_with_the_truth(made: Path, data: Poisoned, tmp_path: Path) -> None:
    figures = evaluate_split(made, data.outputs.train, tmp_path / "metrics.json", tmp_path / "plots")
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == figures
    card = stored.read_card(made, data.outputs.train)
    rows = stored.read_samples(made, card)
    poison = data.poisoned_train.flags("poisoned")
    assert figures["poisoned_precision"] == pytest.approx(
        float(poison[rows.groups == POISONED].double().mean()), abs=1e-6
    )
    assert figures["clean_precision"] == pytest.approx(
        1 - float(poison[rows.groups == CLEAN].double().mean()), abs=1e-6
    )
    assert figures["auroc"] == auroc(rows.fct, poison)
    assert (figures["truly_poisoned"], figures["cover"]) == (6, 12)
    assert figures["gate"] == card.gate
    with (tmp_path / "plots/epochs.csv").open(encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    assert len(epochs) == len(stored.read_epochs(made, card))
    if epochs:
        assert float(epochs[-1]["auroc"]) == pytest.approx(figures["auroc"])
        assert {"frac_zero_fct", "mean_feature_norm"} <= set(epochs[-1])
    assert (tmp_path / "plots/fct.png").is_file()


def test_auroc_is_the_chance_that_poison_has_the_larger_value() -> None:
    fct, poison = torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([False, True, False, True])
    assert auroc(fct, poison) == 0.875
    assert auroc(-fct + 4, poison) == 0.125
    assert auroc(fct, poison & False) is None


def test_a_clean_training_set_has_no_auroc(tmp_path: Path) -> None:
    clean = raw(tmp_path / "raw")
    outputs = poisoned(tmp_path / "poisoned", "none", attack("none", clean[0]), clean).outputs
    split_folder(tmp_path / "oracle", outputs.train, purity=0.0)
    figures = evaluate_split(tmp_path / "oracle", outputs.train, tmp_path / "metrics.json", tmp_path / "plots")
    assert "auroc" not in figures
    assert figures["poisoned_precision"] == 0


def test_a_damaged_folder_is_refused(made: Path, data: Poisoned, tmp_path: Path) -> None:
    copy = tmp_path / made.name
    split_folder(copy, data.outputs.train, made.name, **SMALL.get(made.name, {}))
    card, path = stored.read_card(copy, data.outputs.train), copy / "samples.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1] + "x"]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"samples.csv is not the file that split.json names; run `dvc repro split-"):
        stored.read_samples(copy, card)
    (copy / "split.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"split.json cannot be used \(.*; run `dvc repro split-samples@"):
        stored.read_card(copy, data.outputs.train)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0].replace("fct", "value"), *lines[1:]],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [*lines[:-1], lines[-1] + ",more"],
        lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0] + ",odd"],
        lambda lines: [*lines[:-1], "59,0,nan,clean"],
        lambda lines: [*lines[:-1], f"{10**30},0,1.0,clean"],
        lambda lines: lines[:1],
    ],
)
def test_rows_that_make_no_split_are_refused_even_with_their_sum(
    change: object, data: Poisoned, tmp_path: Path
) -> None:
    card = split_folder(tmp_path / "oracle", data.outputs.train)
    path = tmp_path / "oracle/samples.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(change(lines)) + "\n", encoding="utf-8")  # type: ignore[operator]
    card = card.model_copy(update={"samples_sha256": stored.sha256_of(path)})
    with pytest.raises(UserError, match=r"samples.csv cannot be used \("):
        stored.read_samples(tmp_path / "oracle", card)


def test_cover_images_keep_their_label_and_do_not_count_as_poisoned(data: Poisoned) -> None:
    train = read_split(data.outputs.train)
    assert not (train.flags("cover") & train.flags("poisoned")).any()
