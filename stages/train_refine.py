"""Stage train-refine: a REFINE defence for the classifier in `models/backdoor`, from unlabeled benign images."""

from pathlib import Path
from typing import Any

from refine.params.reading import ParamsFile
from refine.params.train_refine import TrainRefineParams
from refine.system.stage import run


def train_refine() -> dict[str, Any]:
    """Reads `train_refine`; writes `models/refine`."""
    params = ParamsFile(Path("params.yaml")).section("train_refine", TrainRefineParams)

    from refine.data.reader import read_images
    from refine.models.device import compute
    from refine.training import refine

    resolved = compute()
    images = read_images(Path("data/raw/train"))
    precision = refine.train_refine(params, images, Path("models/backdoor"), resolved, Path("models/refine"))
    return {**resolved.facts, "precision": precision}


if __name__ == "__main__":
    run("train-refine", train_refine)
