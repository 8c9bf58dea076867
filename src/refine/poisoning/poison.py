"""The stage poison-dataset: applies any attack to a data set.

What to poison is decided by labels alone, so that only the images that change are decoded, those of one shard at a
time. The poisoned training set is written as the changes to the clean one (`shards.reading.store`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from refine.backdoor import attacker_augmentation, twins
from refine.backdoor.twins import Twins
from refine.core.files import new_folder
from refine.core.machine import DEFAULTS, Machine
from refine.core.progress import progress
from refine.poisoning import saved
from refine.poisoning.attack import NONE, AnyAttack, Chosen
from refine.poisoning.changing import applied, changed, overlay
from refine.poisoning.check import Shown, refuse_useless
from refine.poisoning.defender import Defender, refuse_unfit, write_images
from refine.poisoning.memory import refuse_many
from refine.poisoning.preview import Preview
from refine.shards.format.manifest import Manifest, Shard
from refine.shards.reading.held_out import of_attacker, of_defender
from refine.shards.reading.shard import Chunk
from refine.shards.reading.stored import StoredSplit, open_split
from refine.shards.reading.tensors import save_tensors
from refine.shards.writer import Sample, put_shard, write_shards, writing


@dataclass(frozen=True)
class Outputs:
    """Paths that the stage writes."""

    train: Path
    test: Path
    attack: Path
    preview: Path
    defender: Path

    @classmethod
    def below(cls, folder: Path) -> Outputs:
        """All of them in one folder."""
        return cls(*(folder / name for name in ("train", "test", "attack", "preview.png", "defender")))


@dataclass(frozen=True)
class Clean:
    """The clean data set.

    Attributes:
        folder: of the shards of the training split.
        held_out: share of it that the attacker does not have.
        train: the images that he has.
        test: the test split.
        defender: what the defender has.
    """

    folder: Path
    held_out: float
    train: StoredSplit
    test: StoredSplit
    defender: Defender


def open_clean(
    train: Path,
    test: Path,
    held_out: float = 0.0,
    machine: Machine = DEFAULTS,
    others: Path | None = None,
    contaminated: float = 0.0,
) -> Clean:
    """Opens the data set, whose folders are of any kind.

    Args:
        train: folder of the training images.
        test: of the test images.
        held_out: share of the training images that the attacker does not have.
        machine: its settings, for shards that lie elsewhere.
        others: folder of the images that the defender has instead of the data set's own.
        contaminated: share of the defender's images that have the trigger.

    Raises:
        UserError: a folder is damaged, or the attacker or the defender would have no image.
    """
    split = open_split(train, machine)
    own = split if not held_out else split.subset(of_attacker(len(split.keys), held_out))
    if others is None:
        defender = Defender(split.subset(of_defender(len(split.keys), held_out)), contaminated, train, held_out)
    else:
        defender = Defender(open_split(others, machine), contaminated, None, held_out)
    return Clean(train, held_out, own, open_split(test, machine), defender)


def poison_dataset(name: str, attack: AnyAttack, seed: int, clean: Clean, outputs: Outputs) -> saved.SavedAttack:
    """Poisons a data set; no output appears before all are complete.

    Args:
        name: of the attack.
        attack: with its settings; its tensors are made here.
        seed: of all random draws.
        clean: the data set.
        outputs: paths to write.

    Raises:
        UserError: the attack cannot be applied to this data set, or the result fails a check.
    """
    train, test = clean.train, clean.test
    refuse_unlabeled(name, train.manifest)
    refuse_unfit(clean.defender, attack, name)
    generator = Generator().manual_seed(seed)
    chosen = attack.choose(train.labels, generator)
    given = train.labels.clone()
    given[chosen.poisoned] = attack.relabel(train.labels[chosen.poisoned])
    to_trigger = attack.relabel(test.labels) != test.labels
    refuse_useless(attack.setting.section, chosen, train.labels, given, to_trigger, train.manifest.classes)
    if attack.after_flips:
        refuse_many(len(chosen.poisoned), "poisoned", attack.setting)
    attack.tensors = attack.prepare(train.images, train.labels, chosen, generator)
    with (
        new_folder(outputs.attack) as attack_part,
        new_folder(outputs.test) as test_part,
        new_folder(outputs.train) as train_part,
        new_folder(outputs.defender) as defender_part,
    ):
        twin_images = _Train(attack, clean, chosen, given).write(train_part)
        write_shards(test_part, _triggered(attack, test, to_trigger), test.manifest.description)
        record = saved.save(attack_part, name, attack, chosen, seed, train.labels)
        _save_attacker_augmentation(attack_part / "training", attack, twin_images)
        write_images(defender_part, clean.defender, attack, seed)
        Preview(attack, train, chosen, test, to_trigger, seed).draw(outputs.preview)
    return record


def refuse_unlabeled(name: str, manifest: Manifest) -> None:
    """Stops where an attack would need labels.

    Args:
        name: of the attack.
        manifest: of the training images.

    Raises:
        UserError: the images have no labels, and the attack is not `none`.
    """
    if name != NONE:
        manifest.refuse_unlabeled(Path("data/raw/train"), f"The attack {name}")


class _Train:
    """The poisoned training set.

    Args:
        attack: with its tensors.
        clean: the data set.
        chosen: the selected training images.
        given: int64 [N], labels of all training images after poisoning.
    """

    def __init__(self, attack: AnyAttack, clean: Clean, chosen: Chosen, given: Tensor) -> None:
        self._attack = attack
        self._clean = clean
        self._given = given
        self._order = torch.full((2, len(given)), -1)  # of each image among the poisoned and the cover ones
        for order, rows in zip(self._order, (chosen.poisoned, chosen.cover), strict=True):
            order[rows] = torch.arange(len(rows))
        section = attack.setting.section
        self._shown = Shown("poisoned training", section), Shown("cover", section)

    def write(self, folder: Path) -> Twins | None:
        """Writes the samples that change, into an empty folder beside the final one.

        Returns:
            The twins of poisoned images, where the attack is applied after flips.

        Raises:
            UserError: the trigger changes none of the images.
        """
        train, attack = self._clean.train, self._attack
        rows = (self._order >= 0).any(dim=0).nonzero().flatten()
        shards: list[Shard] = []
        found: list[tuple[Tensor, Tensor]] = []
        for name, chunk in progress(train.images.chunks(rows), "poison the training set", unit="shard"):
            here = torch.searchsorted(train.keys, chunk.keys)
            poisoned, cover = self._order[:, here]
            samples = self._changed(chunk, self._given[here].tolist(), poisoned, cover)
            shards.append(put_shard(writing(folder), name, samples, train.manifest.labeled))
            if attack.after_flips:
                places = poisoned >= 0
                mirrored = applied(attack.poison, chunk.images[places].flip(3), poisoned[places])
                found.append((chunk.keys[places], mirrored))
        if attack.attacker_augmentation().poisoned is None:
            self._shown[0].refuse_hidden()
        self._shown[1].refuse_hidden()
        made = overlay(self._clean.folder, folder, self._clean.held_out, "attacker", self._given, shards)
        made.write(folder)
        if not found:
            return None
        keys, images = zip(*found, strict=True)
        return Twins(torch.cat(keys), torch.cat(images))

    def _changed(self, chunk: Chunk, given: list[int], poisoned: Tensor, cover: Tensor) -> list[Sample]:
        """The samples of a shard that change.

        Args:
            chunk: before.
            given: their labels after poisoning.
            poisoned: int64 [n], their places among the poisoned ones, or -1.
            cover: likewise, among the cover ones.
        """
        images, changes = chunk.images.clone(), (self._attack.poison, self._attack.cover)
        for change, order, shown in zip(changes, (poisoned, cover), self._shown, strict=True):
            places = order >= 0
            images[places] = applied(change, chunk.images[places], order[places])
            shown.add(chunk.images[places], images[places])
        return [
            changed(chunk, place, images[place], given[place], poisoned=bool(poisoned[place] >= 0))
            for place in range(len(images))
        ]


def _triggered(attack: AnyAttack, test: StoredSplit, to_trigger: Tensor) -> Iterator[Sample]:
    """The test images that get the trigger, with it."""
    shown = Shown("triggered test", attack.setting.section)
    chunks = test.images.chunks(to_trigger.nonzero().flatten())
    for _, chunk in progress(chunks, "write the triggered test set", unit="shard"):
        images, given = applied(attack.trigger, chunk.images, chunk.keys), attack.relabel(chunk.labels).tolist()
        shown.add(chunk.images, images)
        for place in range(len(images)):
            yield changed(chunk, place, images[place], given[place], poisoned=True)
    shown.refuse_hidden()


def _save_attacker_augmentation(folder: Path, attack: AnyAttack, twin_images: Twins | None) -> None:
    folder.mkdir()
    part, weights = attack.attacker_augmentation(), attack.initial_weights()
    if twin_images is not None:
        part = part.model_copy(update={"twins_sha256": twins.write(folder, twin_images)})
    if weights is not None:
        sha256 = save_tensors(folder / attacker_augmentation.WEIGHTS, weights)
        part = part.model_copy(update={"initial_weights_sha256": sha256})
    attacker_augmentation.write(folder, part)
