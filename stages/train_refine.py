"""Stage train-refine: a REFINE defence for the classifier in `models/backdoor`, from unlabeled benign images."""

from pathlib import Path
from typing import Any

from refine.params.reading import ParamsFile
from refine.params.train_refine import TrainRefineParams
from refine.system.stage import run


def train_refine() -> dict[str, Any]:
    """Reads `train_refine`; writes `models/refine`."""
    params = ParamsFile(Path("params.yaml")).section("train_refine", TrainRefineParams)

    from refine.data.training_set import open_training_set
    from refine.training import refine
    from refine.training.checkpoint import checkpoints, facts
    from refine.training.processes import joined

    with joined() as compute:
        precision = compute.precision(params.recipe.precision)
        with checkpoints("train-refine", refine.resolved(params, compute), precision, compute) as kept:
            images, _ = open_training_set(Path("data/raw/train"), (), compute.device)
            refine.train_refine(params, images, Path("models/backdoor"), compute, Path("models/refine"), kept)
    return facts(compute, precision, kept)


if __name__ == "__main__":
    run("train-refine", train_refine, Path("models/refine/card.json"), parallel=True)
