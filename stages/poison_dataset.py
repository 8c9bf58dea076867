"""Stage poison-dataset: the chosen attack applied to the clean shards, and all that is needed to apply it again."""

import logging
from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.registry import ATTACKS, component
from refine.core.stage import run
from refine.download.params import other_images
from refine.poisoning.params import PoisonDatasetParams

log = logging.getLogger("poison-dataset")


def poison_dataset(machine: Machine) -> dict[str, Any]:
    """Reads `poison_dataset`, `other_images` and the attack's settings; writes the five outputs in `data/poisoned`."""
    file = ParamsFile(Path("params.yaml"))
    params = file.section("poison_dataset", PoisonDatasetParams)
    module = component(ATTACKS, params.attack.name, "poison_dataset.attack.name")
    settings = file.component("attacks", params.attack.name, module.Params)

    from refine.poisoning import poison
    from refine.poisoning.attack import Setting

    other = other_images(file)
    clean = poison.open_clean(
        Path("data/raw/train"),
        Path("data/raw/test"),
        params.held_out,
        machine,
        others=Path("data/other") / other if other else None,
        contaminated=params.contaminated,
    )
    manifest = clean.train.manifest
    poison.refuse_unlabeled(params.attack.name, manifest)
    setting = Setting(
        num_classes=len(manifest.classes),
        side=manifest.side,
        own_files=Path("data/own/attack"),
        name=params.attack.name,
        machine=machine,
    )
    attack = module.Attack(settings, setting)
    outputs = poison.Outputs.below(Path("data/poisoned"))
    record = poison.poison_dataset(params.attack.name, attack, params.seed, clean, outputs)
    counts = {
        "poisoned": len(record.poisoned),
        "cover": len(record.cover),
        "rate_of_dataset": record.rate_of_dataset,
        "contaminated": clean.defender.triggered,
    }
    if record.rate_of_classes is None:
        return counts
    log.info(
        "%d training images poisoned: %.2f %% of the data set, %.2f %% of the classes that they come from",
        len(record.poisoned),
        100 * record.rate_of_dataset,
        100 * record.rate_of_classes,
    )
    return {**counts, "rate_of_classes": record.rate_of_classes}


if __name__ == "__main__":
    run("poison-dataset", poison_dataset, Path("metrics/runtime"), Path("data/poisoned/attack/attack.json"))
