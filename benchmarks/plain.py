"""The plain way, against which everything is measured: what public code does, written from the definitions.

Training steps in fp32, NCHW, with both views of SupCon as rows of their own, pseudo-labels without
`no_grad`, torch's default optimizers and an `.item()` in each step; input from one PNG file per image, through
torchvision's `DatasetFolder`, Pillow, and transforms of one sample at a time in worker processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import DatasetFolder

from refine.defenses.refine.defense import Refine
from refine.defenses.refine.training.params import Loss
from refine.models.classifier import Classifier
from refine.training.recipe import Augment, Optimizer

BASE_TEMPERATURE = 0.07


def two_view_supcon(images: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss over 2N rows, each image twice; scalar.

    Args:
        images: float [N, ...].
        labels: int64 [N].
        temperature: tau.
    """
    rows = functional.normalize(images.flatten(1), dim=1)
    rows, labels = torch.cat([rows, rows]), torch.cat([labels, labels])
    similarity = rows @ rows.T / temperature
    similarity = similarity - similarity.max(dim=1, keepdim=True).values.detach()
    others = 1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    positives = (labels.unsqueeze(1) == labels).to(rows.dtype) * others
    log_share = similarity - torch.log((torch.exp(similarity) * others).sum(dim=1, keepdim=True))
    each = (positives * log_share).sum(dim=1) / positives.sum(dim=1)
    return -(temperature / BASE_TEMPERATURE) * each.mean()


@dataclass
class PlainBackdoor:
    """Steps of train-backdoor.

    Attributes:
        classifier: NCHW, in train mode.
        settings: of the optimizer.
    """

    classifier: Classifier
    settings: Optimizer

    def __post_init__(self) -> None:
        self._optimizer = _optimizer(self.classifier, self.settings)

    def step(self, pixels: Tensor, labels: Tensor) -> float:
        """One step on pixels float [N, 3, H, W] in [0, 1], augmented before; the loss."""
        logits = self.classifier(pixels)
        loss = functional.cross_entropy(logits, labels)
        _descend(self._optimizer, loss)
        (logits.argmax(dim=1) == labels).float().mean().item()
        return loss.item()


@dataclass
class PlainRefine:
    """Steps of train-refine.

    Attributes:
        defense: NCHW, its transform in train mode.
        loss: weights of the terms.
        settings: of the optimizer.
    """

    defense: Refine
    loss: Loss
    settings: Optimizer

    def __post_init__(self) -> None:
        self._optimizer = _optimizer(self.defense.transform, self.settings)

    def step(self, pixels: Tensor, labels: Tensor) -> float:
        """One step on pixels float [N, 3, H, W] in [0, 1], augmented before; the loss. The labels are not used."""
        del labels
        pseudo_labels = self.defense.classifier(pixels).argmax(dim=1)
        images = self.defense.transformed(pixels)
        probabilities = self.defense.logits(images).softmax(dim=1)
        remapped = torch.zeros_like(probabilities)
        remapped[:, self.defense.permutation] = probabilities
        wanted = functional.one_hot(pseudo_labels, remapped.shape[1]).float()
        loss = functional.binary_cross_entropy(remapped, wanted)
        supcon = two_view_supcon(images, pseudo_labels, self.loss.supcon_temperature)
        loss = loss + self.loss.supcon_weight * supcon
        _descend(self._optimizer, loss)
        return loss.item()


def _optimizer(module: nn.Module, settings: Optimizer) -> optim.Optimizer:
    if settings.name == "adamw":
        return optim.AdamW(module.parameters(), settings.lr, weight_decay=settings.weight_decay)
    return optim.SGD(
        module.parameters(),
        settings.lr,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )


def _descend(optimizer: optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def loader(folder: Path, augment: Augment, batch_size: int, workers: int) -> DataLoader[Any]:
    """Batches of a folder `CLASS/*.png`: pixels float [N, 3, H, W] in [0, 1], augmented, and int64 [N] labels.

    Normalization is left out on both sides, ours has it in the classifier.
    """
    with Image.open(next(folder.rglob("*.png"))) as image:
        side = image.height
    each: list[Any] = [transforms.ToTensor()]
    if augment.crop_scale < 1:
        each.append(transforms.RandomResizedCrop(side, scale=(augment.crop_scale, 1.0), antialias=True))
    if augment.flip:
        each.append(transforms.RandomHorizontalFlip(augment.flip))
    if augment.grayscale:
        each.append(transforms.RandomGrayscale(augment.grayscale))
    images = DatasetFolder(str(folder), _rgb, extensions=(".png",), transform=transforms.Compose(each))
    return DataLoader(images, batch_size, shuffle=True, num_workers=workers)


def _rgb(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
