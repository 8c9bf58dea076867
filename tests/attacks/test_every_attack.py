"""What holds for every attack, including those that are added later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refine.attacks import __name__ as room
from refine.backdoor import attacker_augmentation, twins
from refine.core.errors import UserError
from refine.core.params import Section
from refine.core.registry import component, names
from refine.poisoning import saved
from refine.poisoning.attack import AnyAttack
from refine.shards.format.manifest import Manifest
from refine.shards.reading.reader import Split
from support import description, synthetic
from tiny import Poisoned, attack, files_of, poisoned, raw

ATTACKS = names(room)
SHAPES = [(60, 3, 16), (50, 10, 32)]
FEW = settings(max_examples=8, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Case:
    """An attack of the room with its published settings, applied to a data set on disk."""

    name: str
    result: Poisoned


@pytest.fixture(
    scope="module",
    params=[(name, *shape) for name in ATTACKS for shape in SHAPES],
    ids=lambda case: "-".join(map(str, case)),
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Every attack on every shape of data set."""
    name, count, classes, side = request.param
    folder = tmp_path_factory.mktemp("case")
    clean = raw(folder / "raw", count, classes, side)
    return Case(name, poisoned(folder / "poisoned", name, _attack(name, clean[0]), clean))


def _params(name: str) -> type[Section]:
    model: type[Section] = component(room, name, "a test").Params
    return model


def _attack(name: str, train: Split, **settings: Any) -> AnyAttack:
    """An attack with its published settings, save that a tenth of one class would be no image at all here."""
    made = attack(name, train, **settings)
    return attack(name, train, rate=0.5, **settings) if made.chooses_from == "the target class" else made


def test_all_attacks_of_both_papers_are_there() -> None:
    refine = {"badnets", "blended", "wanet", "batt", "physical", "label_consistent", "adaptive_patch"}
    d_st = {
        "badnets_grid",
        "badnets_square",
        "trojan",
        "blend_strip",
        "blend_kitty",
        "sig",
        "clean_label",
        "ssba",
    }
    assert refine | d_st | {"none", "custom"} <= set(ATTACKS)


def test_images_that_are_not_chosen_keep_their_bytes(case: Case) -> None:
    result = case.result
    chosen = {*result.record.poisoned, *result.record.cover}
    for row in range(len(result.train.images)):
        if row not in chosen:
            assert torch.equal(result.poisoned_train.images[row], result.train.images[row])
            assert result.poisoned_train.labels[row] == result.train.labels[row]


def test_every_training_image_is_still_there_in_its_place(case: Case) -> None:
    result = case.result
    assert torch.equal(result.poisoned_train.keys, result.train.keys)
    assert result.poisoned_train.images.dtype == torch.uint8
    assert result.poisoned_train.images.shape == result.train.images.shape


def test_chosen_rows_differ_from_one_another_and_exist(case: Case) -> None:
    record = case.result.record
    rows = [*record.poisoned, *record.cover]
    assert len(set(rows)) == len(rows)
    assert all(0 <= row < len(case.result.train.images) for row in rows)
    assert record.poisoned == sorted(record.poisoned)
    assert record.cover == sorted(record.cover)


def test_the_poisoned_share_is_as_asked(case: Case) -> None:
    result = case.result
    labels = result.train.labels.tolist()
    candidates = saved.load(result.outputs.attack).candidates(result.train.labels).tolist()
    sources = {labels[row] for row in result.record.poisoned}
    of_classes = sum(label in sources for label in labels)
    assert set(result.record.poisoned) <= set(candidates)
    assert len(result.record.poisoned) == round(result.record.settings.get("rate", 0.0) * len(candidates))
    assert result.record.rate_of_dataset == round(len(result.record.poisoned) / len(labels), 6)
    if sources:
        assert result.record.rate_of_classes == round(len(result.record.poisoned) / of_classes, 6)
    else:
        assert result.record.rate_of_classes is None


def test_who_is_poisoned_and_whether_a_label_changes_is_as_declared(case: Case) -> None:
    result = case.result
    declared = saved.load(result.outputs.attack).chooses_from
    rows = torch.tensor(result.record.poisoned, dtype=torch.int64)
    changed = result.poisoned_train.labels[rows] != result.train.labels[rows]
    if declared == "other classes":
        assert bool(changed.all())
    if declared == "the target class":
        assert len(rows)
        assert not changed.any()


def test_labels_are_as_declared(case: Case) -> None:
    result = case.result
    again = saved.load(result.outputs.attack)
    declared = result.train.labels.clone()
    rows = torch.tensor(result.record.poisoned, dtype=torch.int64)
    declared[rows] = again.relabel(result.train.labels[rows])
    assert torch.equal(result.poisoned_train.labels, declared)
    counts = [declared.tolist().count(label) for label in range(len(result.train.manifest.classes))]
    assert result.poisoned_train.manifest.counts == counts


def test_the_json_of_each_training_image_records_its_poisoning(case: Case) -> None:
    result = case.result
    for row, info in enumerate(result.poisoned_train.infos):
        assert info == {
            **result.train.infos[row],
            "poisoned": row in result.record.poisoned,
            "cover": row in result.record.cover,
            "original_label": int(result.train.labels[row]),
            "given_label": int(result.poisoned_train.labels[row]),
        }


def test_triggered_are_exactly_the_test_images_that_get_another_label(case: Case) -> None:
    result = case.result
    again = saved.load(result.outputs.attack)
    expected = [
        key
        for key, label, given_label in zip(
            result.test.keys.tolist(), result.test.labels.tolist(), again.relabel(result.test.labels), strict=True
        )
        if label != given_label
    ]
    assert result.triggered_test.keys.tolist() == expected
    for info, label in zip(result.triggered_test.infos, result.triggered_test.labels.tolist(), strict=True):
        assert info["poisoned"] is True
        assert info["cover"] is False
        assert info["given_label"] == label != info["original_label"]


def test_the_saved_attack_applied_again_gives_the_triggered_images_exactly(case: Case) -> None:
    result = case.result
    again = saved.load(result.outputs.attack)
    rows = torch.isin(result.test.keys, result.triggered_test.keys)
    applied = again.trigger(result.test.images[rows], result.test.keys[rows])
    assert torch.equal(applied, result.triggered_test.images)


def test_the_trigger_of_an_image_does_not_depend_on_the_images_beside_it(case: Case) -> None:
    result = case.result
    again = saved.load(result.outputs.attack)
    together = again.trigger(result.test.images, result.test.keys)
    for row in range(0, len(result.test.images), 5):
        alone = again.trigger(result.test.images[row : row + 1], result.test.keys[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_the_trigger_shows_on_the_images_that_have_it(case: Case) -> None:
    result = case.result
    rows = torch.isin(result.test.keys, result.triggered_test.keys)
    changed = (result.triggered_test.images != result.test.images[rows]).flatten(1).any(dim=1)
    assert bool(changed.all())


def test_the_same_seed_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    result = case.result
    poisoned(tmp_path, case.name, _attack(case.name, result.train), (result.train, result.test))
    assert files_of(tmp_path) == files_of(result.outputs.train.parent)


def test_images_are_the_same_whichever_batches_they_are_poisoned_in(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = case.result
    monkeypatch.setattr("refine.poisoning.changing._BATCH", 3)
    poisoned(tmp_path, case.name, _attack(case.name, result.train), (result.train, result.test))
    assert files_of(tmp_path) == files_of(result.outputs.train.parent)


def test_the_shards_describe_the_same_data_set_as_the_clean_ones(case: Case) -> None:
    result = case.result
    assert result.poisoned_train.manifest.description == result.train.manifest.description
    assert result.triggered_test.manifest.description == result.test.manifest.description


def test_the_saved_augmentation_is_that_of_the_attack(case: Case) -> None:
    result = case.result
    part = attacker_augmentation.read(result.outputs.attack / "training")
    stated = saved.load(result.outputs.attack).attacker_augmentation()
    assert part.model_copy(update={"initial_weights_sha256": None, "twins_sha256": None}) == stated


def test_attacks_after_the_flips_leave_a_twin_of_each_poisoned_image_and_others_none(case: Case) -> None:
    result = case.result
    folder = result.outputs.attack / "training"
    again = saved.load(result.outputs.attack)
    sha256 = attacker_augmentation.read(folder).twins_sha256
    assert (sha256 is not None) == (folder / twins.NAME).exists() == again.after_flips
    if sha256 is not None:
        made = twins.read(folder, sha256, result.train.manifest.side, torch.device("cpu"))
        rows = torch.tensor(result.record.poisoned)
        assert torch.equal(made.keys, result.train.keys[rows])
        assert torch.equal(made.images, again.trigger(result.train.images[rows].flip(3), result.train.keys[rows]))


def test_the_record_names_the_effective_settings_and_the_data_set(case: Case) -> None:
    record = case.result.record
    assert record.attack == case.name
    assert record.settings == _attack(case.name, case.result.train).params.model_dump()
    assert (record.num_classes, record.side) == (
        len(case.result.train.manifest.classes),
        case.result.train.images.shape[-1],
    )


def _in_memory(count: int, classes: int, side: int, seed: int) -> Split:
    images, labels = synthetic(count, side, classes, seed)
    manifest = Manifest(**description(side, classes).model_dump(), counts=[0] * classes, shards=[])
    return Split(images, labels, torch.arange(count), [{} for _ in range(count)], manifest)


@pytest.mark.parametrize("name", ATTACKS)
@FEW
@given(data=st.data(), count=st.integers(30, 90), classes=st.integers(2, 6), side=st.integers(16, 40))
def test_an_attack_is_a_pure_function_of_its_settings_and_tensors(
    name: str, data: st.DataObject, count: int, classes: int, side: int
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    target = data.draw(st.integers(0, classes - 1))
    wanted = {"target": target} if "target" in _params(name).model_fields else {}
    train = _in_memory(count, classes, side, seed % 1000)
    made = []
    before = train.images.clone()
    for _ in range(2):
        one = _attack(name, train, **wanted)
        generator = torch.Generator().manual_seed(seed)
        rows = one.choose(train.labels, generator)
        one.tensors = one.prepare(train.images, train.labels, rows, generator)
        order = torch.arange(len(rows.poisoned))
        made.append(
            [
                rows.poisoned,
                rows.cover,
                one.poison(train.images[rows.poisoned], order),
                one.cover(train.images[rows.cover], torch.arange(len(rows.cover))),
                one.trigger(train.images, train.keys),
            ]
        )
        assert set(one.relabel(train.labels).tolist()) <= ({target} if wanted else set(range(classes)))
    assert torch.equal(train.images, before)
    assert all(torch.equal(first, second) for first, second in zip(*made, strict=True))
    assert all(images.dtype == torch.uint8 and images.shape[1:] == (3, side, side) for images in made[0][2:])
    assert made[0][0].dtype == made[0][1].dtype == torch.int64


@pytest.mark.parametrize("name", [name for name in ATTACKS if "target" in _params(name).model_fields])
def test_a_target_that_is_no_class_is_refused(name: str) -> None:
    attack(name, _in_memory(60, 3, 32, 0), target=2)
    with pytest.raises(UserError, match="target 3 is not a class of this data set; choose one from 0 to 2"):
        attack(name, _in_memory(60, 3, 32, 0), target=3)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "rate" in _params(name).model_fields])
def test_a_rate_that_picks_no_image_is_refused(name: str) -> None:
    train = _in_memory(60, 3, 32, 0)
    with pytest.raises(UserError, match=rf"rate of 0.001 picks none of \d+ images; raise attacks\.{name}\.rate"):
        attack(name, train, rate=0.001).choose(train.labels, torch.Generator())
