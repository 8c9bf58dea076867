"""Stage train-backdoor: a classifier trained on the poisoned shards, or imported, as a folder of weights and card."""

from pathlib import Path
from typing import Any

from refine.backdoor.params import TrainBackdoorParams
from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.stage import run

INPUTS = (Path(__file__), Path("data/poisoned/train"), Path("data/poisoned/attack/training"))


def train_backdoor(machine: Machine) -> dict[str, Any]:
    """Reads `train_backdoor`; writes `models/backdoor`."""
    params = ParamsFile(Path("params.yaml")).section("train_backdoor", TrainBackdoorParams)

    from refine.backdoor import imported
    from refine.backdoor import train as backdoor
    from refine.defenses.refine.adaptive import WithTransform
    from refine.shards.reading.folder import read
    from refine.training.checkpoint import checkpoints, runtime
    from refine.training.processes import joined
    from refine.training.training_set import open_training_set

    folder = Path("models/backdoor")
    with joined(machine) as compute:
        if params.imported is not None:
            if compute.rank == 0:
                imported.take(params, read(Path("data/poisoned/train")), imported.OWN_MODELS, folder)
            return runtime(compute, "fp32", None)
        precision = compute.precision(params.recipe.precision)
        scratch = machine.root / ".scratch"
        with checkpoints(scratch, "train-backdoor", params.model_dump(), precision, INPUTS, compute) as kept:
            poisoned = open_training_set(Path("data/poisoned/train"), backdoor.FIELDS, compute)
            attack = Path("data/poisoned/attack/training")
            backdoor.train_backdoor(params, poisoned, attack, compute, folder, kept, WithTransform)
    return runtime(compute, precision, kept)


if __name__ == "__main__":
    run("train-backdoor", train_backdoor, Path("metrics/runtime"), Path("models/backdoor/card.json"), parallel=True)
