"""The input-aware trigger: what its networks learn, and that images get their own trigger or that of another."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from refine.attacks import input_aware
from refine.core.errors import UserError
from refine.models.classifier import Classifier, Normalization
from refine.poisoning.attack import Setting
from refine.poisoning.drawing.networks import Drawer, Drawers
from refine.poisoning.drawing.training import JointTask, Shares, likeness, train_mask
from refine.training.batches import Batch
from support import synthetic
from tiny import CPU

SETTING = Setting(num_classes=3, side=16, name="input_aware")


def _drawers() -> Drawers:
    torch.manual_seed(0)
    return Drawers(4).eval()


@pytest.mark.parametrize("side", [16, 28, 32, 45])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_drawn_has_the_size_of_the_image(side: int, channels: int) -> None:
    drawn = Drawer(4, channels)(torch.rand(2, 3, side, side)).detach()
    assert drawn.shape == (2, channels, side, side)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


def test_the_networks_have_as_many_weights_as_the_published_ones() -> None:
    def weights(inputs: int, outputs: int) -> int:
        return (9 * inputs + 1) * outputs + 2 * outputs

    sizes = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 128)]
    sizes += [(128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (32, 3)]
    found = sum(parameter.numel() for parameter in Drawer(32, 3).parameters())
    assert found == sum(weights(*size) for size in sizes)


def test_likeness_is_a_quotient_of_distances() -> None:
    images, others, made, made_of_others = (torch.rand(3, 3, 4, 4, dtype=torch.float64) for _ in range(4))

    def apart(one: Tensor, other: Tensor) -> float:
        return math.sqrt(sum(each**2 for each in (one - other).flatten().tolist()) / 48)

    quotients = [apart(images[row], others[row]) / (apart(made[row], made_of_others[row]) + 0.01) for row in range(3)]
    assert float(likeness(images, others, made, made_of_others)) == pytest.approx(sum(quotients) / 3, rel=1e-6)
    assert float(likeness(images[:0], others[:0], made[:0], made_of_others[:0])) == 0


def test_equal_masks_do_not_break_the_gradient() -> None:
    made = torch.full((2, 1, 4, 4), 0.5, requires_grad=True)
    likeness(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), made, made.flip(0)).backward()  # type: ignore[no-untyped-call]
    assert made.grad is not None
    assert bool(made.grad.isfinite().all())


def _squares() -> Tensor:
    """64 images with a bright square at different places."""
    images = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    places = torch.randint(0, 11, (64, 2), generator=torch.Generator().manual_seed(3))
    for row, (down, along) in enumerate(places.tolist()):
        images[row, :, down : down + 5, along : along + 5] = 200
    return images


def _recipe(rate: float, epochs: int) -> input_aware.MaskRecipe:
    settings = {"epochs": epochs, "batch_size": 16, "optimizer": {"name": "adamw", "lr": rate, "weight_decay": 0.0}}
    return input_aware.MaskRecipe.model_validate(settings)


def test_masks_learn_to_cover_little_and_not_the_same_of_each_image() -> None:
    torch.manual_seed(0)
    drawers, images = Drawers(16), _squares()
    train_mask(drawers, images, (0.032, 100.0, 1.0), _recipe(0.001, 40), 0, CPU)
    masks = drawers.shown(images / 255)
    assert 0.005 < float(masks.mean()) < 0.1
    assert float((masks - masks.roll(1, 0)).abs().amax(dim=(1, 2, 3)).mean()) > 0.5
    assert not any(parameter.requires_grad for parameter in drawers.mask.parameters())


class Seen(nn.Module):
    """A classifier that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = torch.empty(0)
        self.linear = nn.Linear(3, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        self.pixels = pixels
        logits: Tensor = self.linear(pixels.mean(dim=(2, 3)))
        return logits


def test_a_batch_holds_poisoned_crossed_and_clean_images() -> None:
    drawers, seen = _drawers(), Seen()
    plain = Classifier(seen, Normalization(mean=[0.0] * 3, std=[1.0] * 3))
    recipe = input_aware.PatternRecipe()
    task = JointTask(
        module=nn.ModuleList([drawers.pattern, seen]),
        drawers=drawers,
        classifier=plain,
        batches=None,  # type: ignore[arg-type]
        shares=Shares(poisoned=0.25, crossed=0.5, target=2),
        variety=0.0,
        recipe=recipe,
        compute=CPU,
        precision="fp32",
    )
    pixels, labels = torch.rand(8, 3, 16, 16), torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        step = task.step(Batch(pixels, (labels,)))
        others = pixels.roll(1, 0)
        expected = torch.cat([drawers(pixels[:2], pixels[:2]), drawers(pixels[2:6], others[2:6]), pixels[6:]])
        torch.testing.assert_close(seen.pixels, expected)
        wanted = torch.cat([torch.tensor([2, 2]), labels[2:]])
        torch.testing.assert_close(step.loss, nn.functional.cross_entropy(seen.linear(expected.mean((2, 3))), wanted))


def test_crossed_images_get_the_trigger_of_another_one() -> None:
    images, others = synthetic(6, seed=9)[0], synthetic(12, seed=3)[0]
    drawers = _drawers()
    with torch.no_grad():
        for parameter in drawers.parameters():
            parameter.mul_(3)  # so that triggers of new networks differ
    made = input_aware.Attack(input_aware.Params(width=4), SETTING)
    made.tensors = {**drawers.state_dict(), "others": others, "seed": torch.tensor([5])}
    drawers.double()
    covers = made.cover(images, torch.arange(6))
    for image, cover in zip(images, covers, strict=True):
        with torch.no_grad():
            painted = 255 * drawers(image.expand(len(others), -1, -1, -1).double() / 255, others.double() / 255)
        assert (painted - cover).abs().amax(dim=(1, 2, 3)).min() <= 0.5 + 1e-3
    assert torch.equal(made.cover(images[3:], torch.arange(3, 6)), covers[3:])
    assert made.cover(images[:0], torch.arange(0)).shape == (0, 3, 16, 16)
    assert not torch.equal(made.trigger(images, torch.arange(6)), covers)


def test_too_many_crossed_images_are_refused() -> None:
    attack = input_aware.Attack(input_aware.Params(rate=0.4, cross_ratio=2.0), SETTING)
    with pytest.raises(UserError, match=r"lower attacks\.input_aware\.rate or attacks\.input_aware\.cross_ratio"):
        attack.choose(torch.arange(100) % 3, torch.Generator())
