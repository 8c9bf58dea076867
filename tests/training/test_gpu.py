"""Both trainings on a GPU; `python -m pytest -m gpu` runs these alone. The processor runs the same checks beside."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from refine.backdoor import train as backdoor
from refine.backdoor.train import train_backdoor
from refine.defenses.refine import defense as refine
from refine.defenses.refine.training.train import RefineTask, train_refine
from refine.models.device import Compute
from refine.training.checkpoint import Checkpoints
from refine.training.training_set import open_training_set
from support import synthetic
from tiny import ALL_CHANGES, Poisoned, backdoor_params, badnets, history, refine_params


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def compute(request: pytest.FixtureRequest) -> Compute:
    """Of a device that is there."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return Compute(torch.device(request.param), torch.get_num_threads())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """48 training images of three classes, a quarter of them poisoned."""
    return badnets(tmp_path_factory.mktemp("data"))


def _attacked(data: Poisoned, folder: Path, compute: Compute, precision: str) -> Path:
    poisoned_set = open_training_set(data.outputs.train, backdoor.FIELDS, compute)
    params = backdoor_params(precision=precision, augment=ALL_CHANGES)
    train_backdoor(params, poisoned_set, data.outputs.attack / "training", compute, folder / "backdoor")
    return folder / "backdoor"


def _defended(
    data: Poisoned, classifier: Path, compute: Compute, precision: str, checkpoints: Checkpoints | None = None
) -> list[dict[str, float]]:
    images, _ = open_training_set(data.outputs.train.parents[1] / "raw/train", (), compute)
    recipe = {"precision": precision, "augment": ALL_CHANGES, "average": 0.5}
    encoder = {"epochs": 2, "batch_size": 8, "precision": precision, "frozen": True}
    params = refine_params(recipe, encoder=encoder, pseudo_labels="once")
    train_refine(params, images, classifier, compute, classifier.parent / "refine", checkpoints)
    return history(classifier.parent / "refine")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_was_trained_is_the_same_on_the_processor(
    data: Poisoned, compute: Compute, precision: str, tmp_path: Path
) -> None:
    classifier = _attacked(data, tmp_path, compute, precision)
    rows = _defended(data, classifier, compute, precision)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    pixels = synthetic(12)[0] / 255
    here, there = (refine.load(tmp_path / "refine", classifier).to(device) for device in ("cpu", compute.device))
    with torch.inference_mode():
        expected, got = here.probabilities(pixels), there.probabilities(pixels.to(compute.device)).cpu()
    assert expected.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=0, atol=5e-3)


def test_an_interrupted_training_goes_on(
    data: Poisoned, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = _attacked(data, tmp_path, compute, "fp32")
    (tmp_path / "kept").mkdir()
    kept = Checkpoints(tmp_path / "kept")
    whole = _defended(data, classifier, compute, "fp32")

    def interrupt(_: RefineTask, epoch: int, __: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RefineTask, "after_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt, match="interrupted after 1 of 2 epochs"):
            _defended(data, classifier, compute, "fp32", kept)
    again = _defended(data, classifier, compute, "fp32", kept)
    assert [row["epoch"] for row in again] == [1, 2]
    assert again[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0 if compute.device.type == "cpu" else 0.2)
