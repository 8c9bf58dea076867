"""A single image in a batch is refused exactly where torch cannot train on it, with what helps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from refine.core.errors import UserError
from refine.core.registry import ARCHITECTURES, names
from refine.defenses.refine.model.transforms.unet.transform import UNet
from refine.models import classifier as classifiers
from refine.models.classifier import Normalization
from refine.models.device import Compute
from refine.training.lone_image import refuse_lone_image
from refine.training.training_set import Resident
from tiny import CPU, MEAN, STD, WIDTH, backdoor_params, same_tensors, small

BOTH = replace(CPU, world=2)
GPUS = replace(BOTH, device=torch.device("cuda"))


def _network(name: str) -> nn.Module:
    if name == "unet":
        return UNet(WIDTH)
    normalization = Normalization(mean=MEAN, std=STD)
    return classifiers.build(small(name), 3, normalization, 16)


def _refuse(count: int, network: nn.Module, side: int = 16, compute: Compute = CPU, **recipe: Any) -> None:
    images = Resident(torch.zeros(count, 3, side, side, dtype=torch.uint8), ())
    refuse_lone_image(
        network, images, backdoor_params(**{"batch_size": 8, "drop_last": False, **recipe}).recipe, compute
    )


def _refused(saying: str) -> AbstractContextManager[Any]:
    return pytest.raises(UserError, match=rf"^train_backdoor\.recipe: a process would .*{saying}$")


@pytest.mark.parametrize("side", [16, 17, 31, 32, 33])
@pytest.mark.parametrize("name", [*names(ARCHITECTURES), "unet"])
def test_it_is_refused_exactly_where_torch_cannot_normalize_it(name: str, side: int) -> None:
    network = _network(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    refused = None
    try:
        _refuse(9, network, side)
    except UserError as error:
        refused = str(error)
    assert same_tensors(before, network.state_dict())
    with pytest.raises(ValueError, match="more than 1 value") if refused else nullcontext():
        network.train()(torch.rand(1, 3, side, side))


@pytest.mark.parametrize(
    ("count", "batch_size", "remedy"),
    [(9, 8, "raise batch_size or set drop_last"), (9, 1, "raise batch_size"), (1, 8, "train on more images")],
)
def test_what_is_told_helps(count: int, batch_size: int, remedy: str) -> None:
    with _refused(f"single one of the {count} images, too little at 16 pixels; {remedy}"):
        _refuse(count, UNet(WIDTH), batch_size=batch_size)
    _refuse(9, UNet(WIDTH), batch_size=8, drop_last=True)
    _refuse(9, UNet(WIDTH), batch_size=9)


@pytest.mark.parametrize(("count", "refused"), [(17, False), (18, True), (19, True), (20, False)])
def test_each_of_several_processes_needs_two_images_and_gpus_need_them_together(count: int, refused: bool) -> None:
    with _refused("raise batch_size or set drop_last") if refused else nullcontext():
        _refuse(count, UNet(WIDTH), compute=BOTH)
    _refuse(count, UNet(WIDTH), compute=GPUS)


def test_batches_that_leave_each_process_one_image_have_to_be_larger() -> None:
    with _refused("raise batch_size"):
        _refuse(8, UNet(WIDTH), compute=BOTH, batch_size=2, drop_last=True)
