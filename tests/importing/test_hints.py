"""Labeled images show what an import got wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from refine.importing.hints import accuracy, hints
from refine.models.classifier import Classifier, Normalization


class ByColor(nn.Module):
    """Says which channel is the brightest; values far from the right ones always give class 0."""

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean(dim=(2, 3))
        usual = ((images.amin(dim=(1, 2, 3)) >= -0.01) & (images.amax(dim=(1, 2, 3)) <= 1.01)).float()
        return means * usual.view(-1, 1) + torch.tensor([0.5, 0.0, 0.0]) * (1 - usual.view(-1, 1))


def _classifier(mean: float = 0.0, std: float = 1.0) -> Classifier:
    return Classifier(ByColor(), Normalization(mean=[mean] * 3, std=[std] * 3)).eval()


def _images(channels: list[int]) -> tuple[Tensor, Tensor]:
    """Twelve images of each of three classes, each with its channel at full brightness."""
    images = torch.zeros(36, 3, 16, 16, dtype=torch.uint8)
    labels = torch.arange(36) % 3
    for row, label in enumerate(labels.tolist()):
        images[row, channels[label]] = 255
    return images, labels


def test_a_right_classifier_gets_no_hint() -> None:
    images, labels = _images([0, 1, 2])
    assert accuracy(_classifier(), images, labels) == 1
    assert hints(_classifier(), images, labels, 3) == []


def test_a_wrong_normalization_is_found() -> None:
    images, labels = _images([0, 1, 2])
    wrong = _classifier(0.5, 0.25)
    assert accuracy(wrong, images, labels) == pytest.approx(1 / 3)
    assert hints(wrong, images, labels, 3)[0].startswith(
        "with --mean 0,0,0 --std 1,1,1 (no normalization) it would be 100.0%"
    )


def test_another_order_of_channels_and_of_classes_is_found() -> None:
    images, labels = _images([2, 1, 0])
    found = hints(_classifier(), images, labels, 3)
    assert any("--bgr" in hint and "100.0%" in hint for hint in found)
    images, labels = _images([1, 2, 0])
    assert [hint for hint in hints(_classifier(), images, labels, 3) if "another order" in hint and "100.0%" in hint]
