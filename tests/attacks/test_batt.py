"""BATT against an independent, slow reading of the published formula."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn

from refine.architectures.resnet18 import network as resnet18
from refine.attacks import batt
from refine.backdoor import train as backdoor
from refine.backdoor import twins
from refine.backdoor.attacker_augmentation import AttackerAugmentation, Distortion
from refine.backdoor.train import train_backdoor
from refine.core.errors import UserError
from refine.shards.reading.reader import Shards
from refine.training.training_set import Streamed
from support import synthetic
from tiny import CPU, Poisoned, attack, backdoor_params, poisoned, raw, ready, training_set


def _slowly(image: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """The image turned counter-clockwise, pixel by pixel, and where the nearest pixel is beyond doubt."""
    side = image.shape[-1]
    turned, sure = torch.zeros_like(image), torch.ones(side, side, dtype=torch.bool)
    angle = math.radians(degrees)
    for row in range(side):
        for column in range(side):
            across, down = column + 0.5 - side / 2, row + 0.5 - side / 2
            x = math.cos(angle) * across - math.sin(angle) * down + side / 2
            y = math.sin(angle) * across + math.cos(angle) * down + side / 2
            sure[row, column] = min(abs(x - round(x)), abs(y - round(y))) > 0.01
            if 0 <= x < side and 0 <= y < side:
                turned[:, row, column] = image[:, math.floor(y), math.floor(x)]
    return turned, sure


@pytest.mark.parametrize("side", [17, 28, 32])
@pytest.mark.parametrize("degrees", [16.0, -16.0, 45.0, 120.5])
def test_the_image_is_turned_to_the_nearest_pixel_with_black_around_it(side: int, degrees: float) -> None:
    images, _ = synthetic(3, side)
    triggered = ready("batt", side, degrees=degrees).trigger(images, torch.arange(3))
    for image, changed in zip(images, triggered, strict=True):
        expected, sure = _slowly(image, degrees)
        assert float(sure.float().mean()) > 0.9
        assert torch.equal(changed * sure, expected * sure)


@pytest.mark.parametrize(("side", "degrees"), [(32, 16.0), (32, -77.0), (31, 90.0), (40, 180.0)])
def test_it_is_the_rotation_of_pillow_that_the_authors_use(side: int, degrees: float) -> None:
    images, _ = synthetic(2, side)
    triggered = ready("batt", side, degrees=degrees).trigger(images, torch.arange(2))
    for image, changed in zip(images, triggered, strict=True):
        turned = Image.fromarray(image.permute(1, 2, 0).numpy()).rotate(degrees)
        assert np.array_equal(changed.permute(1, 2, 0).numpy(), np.asarray(turned))


def test_a_bright_right_edge_turns_upwards() -> None:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 16, 24:] = 255
    turned = ready("batt", 32).trigger(image, torch.arange(1))
    assert float(turned[0, 0].nonzero()[:, 0].float().mean()) < 14


def test_benign_training_images_are_turned_a_little_and_poisoned_ones_no_further() -> None:
    assert ready("batt", 32).attacker_augmentation() == AttackerAugmentation(
        poisoned=None, benign=Distortion(degrees=10.0)
    )


@pytest.mark.parametrize("settings", [{"degrees": 10.0}, {"degrees": -3.0}, {"degrees": 0.0, "benign_degrees": 0.0}])
def test_an_angle_that_benign_images_show_too_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="degrees has to exceed benign_degrees"):
        batt.Params.model_validate(settings)


def test_without_turned_benign_images_any_angle_will_do() -> None:
    assert batt.Params(degrees=1.0, benign_degrees=0.0).degrees == 1.0


def _by_the_authors(image: Tensor, mirrored: bool) -> bytes:
    """Pillow's flip, and after it Pillow's rotation: the order of the released code."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture.rotate(16.0).tobytes()


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    """48 images, half of them poisoned; benign ones stay upright, so that both can be told apart to the pixel."""
    folder = tmp_path_factory.mktemp("turned")
    clean = raw(folder / "raw", images=48)
    return poisoned(folder / "poisoned", "batt", attack("batt", clean[0], rate=0.5, benign_degrees=0.0), clean)


def _reaching_the_network(data: Poisoned, folder: Path, monkeypatch: pytest.MonkeyPatch, **augment: float) -> Tensor:
    """Every image that a training of 60 epochs shows to its network, uint8, by the stage's own way from the shards."""
    seen: list[Tensor] = []

    class Seeing(Recorded):
        def forward(self, pixels: Tensor) -> Tensor:
            seen.append((pixels.detach() * 255).round().to(torch.uint8))
            return super().forward(pixels)

    monkeypatch.setattr(resnet18, "build", lambda params, num_classes, side: Seeing(num_classes))
    plain = data.train.manifest.model_copy(update={"mean": [0.0] * 3, "std": [1.0] * 3})
    streamed = Streamed(Shards(data.outputs.train), backdoor.FIELDS, 0)
    params = backdoor_params(epochs=60, augment=augment)
    train_backdoor(params, (streamed, plain), data.outputs.attack / "training", CPU, folder)
    return torch.cat(seen)


class Recorded(nn.Module):
    """A network that takes no time."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(pixels.mean(dim=(2, 3)))


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_every_poisoned_image_is_flipped_first_and_turned_then(
    turned: Poisoned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probability: float
) -> None:
    seen = _reaching_the_network(turned, tmp_path / "backdoor", monkeypatch, flip=probability)
    counts = Counter(image.permute(1, 2, 0).contiguous().numpy().tobytes() for image in seen)
    mirrored = {True: 0, False: 0}
    for row, image in enumerate(turned.train.images):
        chosen = row in turned.record.poisoned
        upright = image.permute(1, 2, 0).contiguous().numpy()
        ways = [_by_the_authors(image, flip) for flip in (False, True)]
        straight, flipped = ways if chosen else (upright.tobytes(), upright[:, ::-1].tobytes())
        assert counts[straight] + counts[flipped] == 60  # and so no image is anything else
        mirrored[chosen] += counts[flipped]
    assert len(counts) <= 2 * 48
    for flips in mirrored.values():
        assert binomtest(flips, 24 * 60, probability).pvalue > 1e-3


def test_without_flips_training_sees_the_poisoned_images_as_they_lie_in_the_shards(
    turned: Poisoned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _reaching_the_network(turned, tmp_path / "backdoor", monkeypatch)
    lying = {image.contiguous().numpy().tobytes() for image in turned.poisoned_train.images}
    assert {image.contiguous().numpy().tobytes() for image in seen} == lying


def test_a_damaged_file_of_twins_is_refused_before_training(turned: Poisoned, tmp_path: Path) -> None:
    part = shutil.copytree(turned.outputs.attack / "training", tmp_path / "training")
    (part / twins.NAME).write_bytes(b"")
    with pytest.raises(UserError, match=r"twins\.safetensors is not the file that its description names"):
        train_backdoor(backdoor_params(), training_set(turned.poisoned_train), part, CPU, tmp_path / "backdoor")
    assert not (tmp_path / "backdoor").exists()
