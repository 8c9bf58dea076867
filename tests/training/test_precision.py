"""Under bfloat16 the networks alone are narrow: what a loss is made of, and what comes of it, is float32."""

from __future__ import annotations

import pytest
import torch

from refine.backdoor.attacker_augmentation import AttackerAugmentation
from refine.backdoor.params import BackdoorRecipe
from refine.backdoor.train import BackdoorTask
from refine.defending.pseudo_labels import PseudoLabels
from refine.defenses.refine.training.encoder import EncoderTask
from refine.defenses.refine.training.train import RefineTask
from refine.models import classifier as classifiers
from refine.training.batches import Batch
from refine.training.loop import Task
from support import synthetic
from tiny import CPU, backdoor_params, classifier, defense, refine_params


def _task(name: str) -> Task:
    params = refine_params(encoder={})
    if name == "backdoor":
        recipe: BackdoorRecipe = backdoor_params().recipe
        trained = classifiers.freeze(classifier()).train().requires_grad_()
        return BackdoorTask(trained, [], recipe, AttackerAugmentation(), CPU, "bf16")
    made = defense(classifier()).train()
    answers = PseudoLabels(made.classifier, params.recipe, False, CPU, "bf16")
    if name == "refine":
        return RefineTask(made, [], answers, params, CPU, "bf16", keep=[])
    assert params.encoder is not None
    head = made.transform.begin(made.classifier, 3, lambda: torch.zeros(1, 3, 16, 16))
    return EncoderTask(made, head, [], answers, params.encoder, CPU, "bf16")


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("backdoor", {"loss", "train_accuracy"}),
        ("encoder", {"loss", "agreement"}),
        ("refine", {"loss", "utility", "supcon", "agreement", "clamped_low", "clamped_high"}),
    ],
)
def test_loss_and_terms_are_of_float32_values(name: str, terms: set[str]) -> None:
    images, labels = synthetic(6)
    pixels = (images / 255).contiguous(memory_format=torch.channels_last)
    step = _task(name).step(Batch(pixels, (labels, torch.zeros_like(labels))))
    assert step.loss.dtype == torch.float32
    assert {term: value.dtype for term, value in step.terms.items()} == dict.fromkeys(terms, torch.float32)
