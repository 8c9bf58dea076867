"""The stage poison-dataset: applies any attack to a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from refine.backdoor import attacker_augmentation, twins
from refine.backdoor.twins import Twins
from refine.core.files import new_folder
from refine.core.progress import progress
from refine.poisoning import saved
from refine.poisoning.attack import AnyAttack, Chosen
from refine.poisoning.check import Checks
from refine.poisoning.preview import Preview
from refine.shards.reading.reader import Split
from refine.shards.reading.tensors import save_tensors
from refine.shards.writer import Sample, write_shards

NONE = "none"
"""The attack that leaves every image and every label as it is, and so takes images without labels, too."""
_BATCH = 512  # bounds the memory of float arithmetic in triggers


@dataclass(frozen=True)
class Outputs:
    """Paths that the stage writes."""

    train: Path
    test: Path
    attack: Path
    preview: Path


def poison_dataset(
    name: str, attack: AnyAttack, seed: int, train: Split, test: Split, outputs: Outputs
) -> saved.SavedAttack:
    """Poisons a data set; no output appears before all are complete.

    Args:
        name: of the attack.
        attack: with its settings; its tensors are made here.
        seed: of all random draws.
        train: clean training split.
        test: clean test split.
        outputs: paths to write.

    Raises:
        UserError: the attack cannot be applied to this data set, or the result fails a check.
    """
    refuse_unlabeled(name, train)
    checks = Checks(attack, train, test)
    generator = torch.Generator().manual_seed(seed)
    chosen = attack.choose(train.labels, generator)
    given = train.labels.clone()
    given[chosen.poisoned] = attack.relabel(train.labels[chosen.poisoned])
    to_trigger = attack.relabel(test.labels) != test.labels
    checks.labels(chosen, given, to_trigger)
    attack.tensors = attack.prepare(train.images, train.labels, chosen, generator)
    images = train.images.clone()
    _apply(attack.poison, images, chosen.poisoned, torch.arange(len(chosen.poisoned)))
    _apply(attack.cover, images, chosen.cover, torch.arange(len(chosen.cover)))
    triggered = test.images[to_trigger]
    _apply(attack.trigger, triggered, torch.arange(len(triggered)), test.keys[to_trigger])
    checks.images(chosen, images, to_trigger, triggered)
    with (
        new_folder(outputs.attack) as attack_part,
        new_folder(outputs.test) as test_part,
        new_folder(outputs.train) as train_part,
    ):
        write_shards(train_part, _train_samples(train, images, chosen, given), train.manifest.description)
        write_shards(test_part, _test_samples(attack, test, to_trigger, triggered), test.manifest.description)
        record = saved.save(attack_part, name, attack, chosen, seed, train.labels)
        _save_attacker_augmentation(attack_part / "training", attack, train, chosen)
        Preview(attack, train, images, chosen, test, to_trigger, triggered, seed).draw(outputs.preview)
    return record


def refuse_unlabeled(name: str, train: Split) -> None:
    """Stops where an attack would need labels.

    Args:
        name: of the attack.
        train: the training split.

    Raises:
        UserError: the images have no labels, and the attack is not `none`.
    """
    if name != NONE:
        train.manifest.refuse_unlabeled(Path("data/raw/train"), f"The attack {name}")


def _apply(change: Callable[[Tensor, Tensor], Tensor], images: Tensor, rows: Tensor, numbers: Tensor) -> None:
    """Changes these rows of the images in place; `numbers` is the second argument of `change`."""
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        images[some] = change(images[some], numbers[start : start + _BATCH])


def _save_attacker_augmentation(folder: Path, attack: AnyAttack, train: Split, chosen: Chosen) -> None:
    folder.mkdir()
    part, weights = attack.attacker_augmentation(), attack.initial_weights()
    if attack.after_flips:
        part = part.model_copy(update={"twins_sha256": twins.write(folder, _twins(attack, train, chosen.poisoned))})
    if weights is not None:
        sha256 = save_tensors(folder / attacker_augmentation.WEIGHTS, weights)
        part = part.model_copy(update={"initial_weights_sha256": sha256})
    attacker_augmentation.write(folder, part)


def _twins(attack: AnyAttack, train: Split, rows: Tensor) -> Twins:
    order = train.keys[rows].argsort()
    mirrored = train.images[rows[order]].flip(3)
    _apply(attack.poison, mirrored, torch.arange(len(rows)), order)
    return Twins(train.keys[rows[order]], mirrored)


def _train_samples(train: Split, images: Tensor, chosen: Chosen, given: Tensor) -> Iterator[Sample]:
    poisoned, cover = (torch.zeros(len(given), dtype=torch.bool) for _ in range(2))
    poisoned[chosen.poisoned] = True
    cover[chosen.cover] = True
    for row in progress(range(len(given)), "write the poisoned training set", unit="image"):
        flags = {"poisoned": bool(poisoned[row]), "cover": bool(cover[row])}
        yield _sample(train, row, images[row], int(given[row]), flags)


def _test_samples(attack: AnyAttack, test: Split, to_trigger: Tensor, triggered: Tensor) -> Iterator[Sample]:
    rows = to_trigger.nonzero().flatten()
    given = attack.relabel(test.labels[rows])
    for place in progress(range(len(rows)), "write the triggered test set", unit="image"):
        yield _sample(test, int(rows[place]), triggered[place], int(given[place]), {"poisoned": True, "cover": False})


def _sample(clean: Split, row: int, image: Tensor, given: int, flags: dict[str, bool]) -> Sample:
    labels = {"original_label": int(clean.labels[row]), "given_label": given} if clean.manifest.labeled else {}
    info = {**clean.infos[row], **flags, **labels}
    return Sample(int(clean.keys[row]), image.permute(1, 2, 0).numpy(), given, info)
