"""Stage train-backdoor: a classifier trained on the poisoned shards, as a folder of weights and card."""

from pathlib import Path
from typing import Any

from refine.params.reading import ParamsFile
from refine.params.train_backdoor import TrainBackdoorParams
from refine.system.stage import run


def train_backdoor() -> dict[str, Any]:
    """Reads `train_backdoor`; writes `models/backdoor`."""
    params = ParamsFile(Path("params.yaml")).section("train_backdoor", TrainBackdoorParams)

    from refine.data.reader import read_split
    from refine.models.device import compute
    from refine.training import backdoor

    resolved = compute()
    poisoned = read_split(Path("data/poisoned/train"))
    attack = Path("data/poisoned/attack/training")
    precision = backdoor.train_backdoor(params, poisoned, attack, resolved, Path("models/backdoor"))
    return {**resolved.facts, "precision": precision}


if __name__ == "__main__":
    run("train-backdoor", train_backdoor)
