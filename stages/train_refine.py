"""Stage train-refine: a REFINE defense for the classifier in `models/backdoor`, from unlabeled benign images."""

from pathlib import Path
from typing import Any

from refine.core.machine import Machine
from refine.core.params import ParamsFile
from refine.core.stage import run
from refine.defenses.refine.training.params import TrainRefineParams

IMAGES = Path("data/poisoned/defender")
INPUTS = (Path(__file__), IMAGES, Path("models/backdoor"))


def train_refine(machine: Machine) -> dict[str, Any]:
    """Reads `train_refine`; writes `models/refine`."""
    params = ParamsFile(Path("params.yaml")).section("train_refine", TrainRefineParams)

    from refine.core.registry import TRANSFORM, TRANSFORMS, part
    from refine.defenses.refine.training import train as refine
    from refine.training.checkpoint import checkpoints, runtime
    from refine.training.processes import joined
    from refine.training.training_set import open_training_set

    part(TRANSFORMS, params.transform.name, TRANSFORM)  # before `checkpoints`, whose key covers the code that is loaded
    with joined(machine) as compute:
        precision = compute.precision(params.recipe.precision)
        scratch = machine.root / ".scratch"
        values = refine.resolved(params, compute)
        with checkpoints(scratch, "train-refine", values, precision, INPUTS, compute) as kept:
            images, _ = open_training_set(IMAGES, (), compute)
            refine.train_refine(params, images, Path("models/backdoor"), compute, Path("models/refine"), kept)
    return {**runtime(compute, precision, kept), "images": round(params.unlabeled_fraction * sum(images.sizes))}


if __name__ == "__main__":
    run("train-refine", train_refine, Path("metrics/runtime"), Path("models/refine/card.json"), parallel=True)
