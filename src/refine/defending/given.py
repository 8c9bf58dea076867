"""What a defender is given: its settings, and the images of its data regime as shards of their own.

A defense then depends on these alone. It cannot see more than its regime allows: there are no labels in the shards of
unlabeled images, and nothing in those of a poisoned training set tells which images are poisoned. Where a defense names
a split of that set in its settings, the images have the flags of this split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Generator, Tensor

from refine.core.files import new_folder, write_json
from refine.core.machine import DEFAULTS, Machine
from refine.core.params import Section
from refine.core.progress import progress
from refine.defending.material import IMAGES, Given, GivenSplit
from refine.defending.material import NAME as GIVEN
from refine.defending.params import DefenseDataParams, split_of
from refine.defending.protocol.defense import Regime
from refine.defending.share import chosen
from refine.shards.reading.folder import complete
from refine.shards.reading.held_out import of_defender
from refine.shards.reading.reader import Shards
from refine.shards.writer import Sample, write_shards
from refine.splitting.folder import read_card, read_samples
from refine.splitting.groups import CLEAN, NAMES, POISONED

Flags = dict[int, dict[str, bool]]

_SOURCES = {"unlabeled": "defender", "labeled": "raw", "poisoned_train": "poisoned"}


def give(
    defense: str,
    regime: Regime,
    settings: Section,
    data: DefenseDataParams,
    sources: dict[str, Path],
    out: Path,
    held_out: float = 0.0,
    machine: Machine = DEFAULTS,
) -> Given:
    """Writes what a defender is given.

    Args:
        defense: its name.
        regime: what it needs.
        settings: of the defense.
        data: how much of the clean images that the defender has.
        sources: folders: of shards `raw`, `poisoned` and `defender`, and of all splits `split`.
        out: takes `given.json` and, unless the regime is `none`, the shards.
        held_out: share of the training images that is held out for the defender, see `reading.held_out`.
        machine: its settings.

    Raises:
        UserError: the shards are damaged, or the share holds no image.
    """
    split, flags = _split(settings, sources) if split_of(settings) else (None, {})
    with new_folder(out) as part:
        count = 0
        if regime != "none":
            source = sources[_SOURCES[regime]]
            rows = _given(regime, complete(source).samples, data, held_out)
            (part / IMAGES).mkdir()
            shards = Shards(source, machine=machine)
            samples = _samples(shards, rows, regime != "unlabeled", flags)
            count = write_shards(part / IMAGES, samples, shards.manifest.description).samples
        values = settings.model_dump()
        given = Given(defense=defense, regime=regime, settings=values, seed=data.seed, images=count, split=split)
        write_json(part / GIVEN, given.model_dump())
    return given


def _split(settings: Section, sources: dict[str, Path]) -> tuple[GivenSplit, Flags]:
    """The split that the settings name, and the flags that it gives to each image, by its key."""
    place = sources["split"] / str(split_of(settings))
    card = read_card(place, sources["poisoned"])
    rows = read_samples(place, card)
    flags = {
        key: {"split_clean": group == CLEAN, "split_poisoned": group == POISONED}
        for key, group in zip(rows.keys.tolist(), rows.groups.tolist(), strict=True)
    }
    clean, poisoned = (card.counts[NAMES[group]] for group in (CLEAN, POISONED))
    return GivenSplit(name=place.name, clean=clean, poisoned=poisoned, gate=card.gate, abstain=card.abstain), flags


def _given(regime: Regime, samples: int, data: DefenseDataParams, share: float) -> Tensor:
    """Which of the images of its folder a regime allows, bool [samples]."""
    if regime == "poisoned_train":
        return torch.ones(samples, dtype=torch.bool)
    own = of_defender(samples, share if regime == "labeled" else 0.0).nonzero().flatten()
    fraction = {"labeled": data.labeled, "unlabeled": data.unlabeled}[regime]
    given = torch.zeros(samples, dtype=torch.bool)
    given[own[chosen(len(own), fraction, Generator().manual_seed(data.seed), f"defense_data.{regime}")]] = True
    return given


def _samples(shards: Shards, given: Tensor, labels: bool, flags: Flags) -> Iterator[Sample]:
    """The given images of these shards with `flags` as their `infos`, and label 0 unless `labels` are kept."""
    row = 0
    for chunk in progress(shards, "give images to the defender", unit="shard"):
        for key, image, label in zip(
            chunk.keys.tolist(), chunk.images.permute(0, 2, 3, 1).numpy(), chunk.labels.tolist(), strict=True
        ):
            if given[row]:
                yield Sample(key, image, label if labels else 0, flags.get(key, {}))
            row += 1
