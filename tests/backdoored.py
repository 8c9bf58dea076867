"""A network whose backdoor is built by hand, and images for it: signs have to find it in no time."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

import tiny
from refine.models import classifier as classifiers
from refine.models.classifier import Classifier, Normalization
from refine.proof.judging.sign import Subject

CLASSES = 6
SIDE = 12
TARGET = 2


class Regions(nn.Module):
    """Answers the brightest of six regions of an image, or the target if the pixel in a corner is bright.

    Args:
        strength: how much that pixel counts; 0 is no backdoor.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.head = nn.Linear(CLASSES + 1, CLASSES)
        with torch.no_grad():
            self.head.weight.copy_(20 * torch.eye(CLASSES, CLASSES + 1))
            self.head.weight[TARGET, CLASSES] = strength
            self.head.bias.zero_()

    def features(self, images: Tensor) -> Tensor:
        """The brightness of each region and of the pixel, float [N, 7]."""
        gray = images.mean(dim=1, keepdim=True)
        return torch.cat([functional.avg_pool2d(gray, (4, 6)).flatten(1), gray[:, :, 0, -1]], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def images(count: int = 120) -> Tensor:
    """Images with one bright region and a black corner, uint8 [count, 3, 12, 12]."""
    generator = Generator().manual_seed(0)
    made = torch.randint(0, 100, (count, 3, SIDE, SIDE), generator=generator)
    for number in range(count):
        row, column = divmod(number % CLASSES, 2)
        made[number, :, 4 * row : 4 * row + 4, 6 * column : 6 * column + 6] += 100
    made[:, :, 0, -1] = 0
    return made.to(torch.uint8)


def classifier(strength: float) -> Classifier:
    """The network as a classifier, frozen."""
    return classifiers.freeze(Classifier(Regions(strength), Normalization(mean=[0.0] * 3, std=[0.3] * 3)))


def subject(strength: float, count: int = 120) -> Subject:
    """What signs are given of it."""
    of, pictures = classifier(strength), images(count)
    return Subject(
        classifier=of,
        classes=[f"class-{label}" for label in range(CLASSES)],
        images=pictures,
        names=[f"{number}.png" for number in range(count)],
        probabilities=of(pictures / 255).softmax(dim=1),
        compute=tiny.CPU,
    )
