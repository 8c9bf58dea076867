"""Projected gradient ascent against a frozen classifier (Madry et al. 2018).

    x_0 = x (+ u, uniform in [-e, e]),  x_{t+1} = clip(x_t + s sign(grad CE(F(x_t), y))) to [x - e, x + e] and [0, 1]

The gradient is taken with respect to pixels; normalization is part of F. The released code of both papers passes
pixels to a network that expects normalized input, and so attacks another function.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.core.progress import progress
from refine.models.classifier import Classifier
from refine.poisoning.adversarial.settings import Perturbation
from refine.poisoning.overlay import to_levels

_BATCH = 128


def perturbed(
    classifier: Classifier, images: Tensor, labels: Tensor, settings: Perturbation, generator: Generator
) -> Tensor:
    """Perturbs images so that the classifier no longer recognizes their label, uint8 of the same shape.

    Args:
        classifier: frozen.
        images: uint8 [n, 3, side, side].
        labels: int64 [n], true labels.
        settings: of the perturbation.
        generator: on the CPU.
    """
    result = images.clone()
    for start in progress(range(0, len(images), _BATCH), "perturb the poisoned images", unit="batch"):
        rows = slice(start, start + _BATCH)
        pixels = images[rows].to(classifier.mean.device) / 255
        ascended = ascend(classifier, pixels, labels[rows].to(pixels.device), settings, generator)
        result[rows] = to_levels(255 * ascended).cpu()
    return result


def ascend(
    classifier: Classifier, pixels: Tensor, labels: Tensor, settings: Perturbation, generator: Generator
) -> Tensor:
    """Perturbs one batch of pixels, float [n, 3, H, W] in [0, 1]; the classifier has to be in eval mode."""
    epsilon, step = settings.epsilon / 255, settings.step / 255
    low, high = (pixels - epsilon).clamp(min=0), (pixels + epsilon).clamp(max=1)
    changed = pixels
    if settings.random_start:
        noise = torch.rand(pixels.shape, generator=generator).to(pixels.device)
        changed = (pixels + epsilon * (2 * noise - 1)).clamp(low, high)
    for _ in range(settings.steps):
        changed = changed.detach().requires_grad_()
        with torch.enable_grad():
            loss = functional.cross_entropy(classifier(changed), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, changed)
        changed = (changed.detach() + step * gradient.sign()).clamp(low, high)
    return changed.detach()
