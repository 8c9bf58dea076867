"""Training against a pattern that is the same in all images, and which is sought meanwhile.

Where an encoder follows a faint pattern that lies over the whole image, as that of Blended, a defender who does not
know the pattern finds others that it follows as well: by the gradient of the loss, which the training computes anyway.
The encoder learns to answer as without them (Shafahi et al., AAAI 2020, "Universal Adversarial Training"). No label and
no trigger is needed.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from refine.training.augment import uniform

_STEP = 0.2
"""How far each value of the pattern moves in a step, as a share of the bound."""
_SHARE = 0.5
"""Of the images that have the pattern."""


class Universal:
    """One pattern for all images of an epoch.

    Args:
        bound: largest change of a value, in the range of the images.
        generator: of the first pattern of an epoch and of the images that have it, on their device.
    """

    def __init__(self, bound: float, generator: Generator) -> None:
        self._bound = bound
        self._generator = generator
        self._pattern: Tensor | None = None

    def begin(self) -> None:
        """A new pattern from the next images on. As each epoch has its own, a checkpoint need not hold it."""
        self._pattern = None

    def added(self, pixels: Tensor) -> Tensor:
        """Images float [N, 3, H, W], half of them with the pattern, maybe outside of [0, 1]; gradients reach it."""
        if self._pattern is None:
            drawn = torch.rand(pixels.shape[1:], generator=self._generator, device=pixels.device)
            self._pattern = ((2 * drawn - 1) * self._bound).requires_grad_()
        has = (uniform(pixels, self._generator) < _SHARE).view(-1, 1, 1, 1)
        return (pixels + has * self._pattern).contiguous(memory_format=torch.channels_last)

    def follow(self) -> None:
        """Moves the pattern to where the last loss grows, with its gradient."""
        if self._pattern is None or self._pattern.grad is None:
            raise RuntimeError("no loss of images with the pattern was differentiated")
        moved = self._pattern.detach() + _STEP * self._bound * self._pattern.grad.sign()
        self._pattern = moved.clamp(-self._bound, self._bound).requires_grad_()
