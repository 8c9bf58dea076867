"""Training against a perturbation that is the same for all images, and which is sought meanwhile.

Where an encoder follows a faint pattern that lies over the whole image, as that of Blended, a defender who does not
know the pattern finds others that it follows as well: by the gradient of the loss, which the training computes anyway.
The encoder learns to answer as without them, for which no label and no trigger is needed. After Shafahi et al. (AAAI
2020, "Universal Adversarial Training"); ours are that some of the images stay as they are, and that the search begins
anew from time to time, so that the encoder meets several perturbations.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from refine.training.augment import uniform

_STEP = 0.2
"""How far each value moves in a step, as a share of the bound."""
_STEPS = 30
"""Steps that one perturbation is sought for."""
_PERTURBED = 0.5
"""Probability that an image is perturbed."""


class UniversalPerturbation:
    """One perturbation of all images, and after some steps another one. Each process seeks its own.

    Args:
        bound: largest change of a value, of pixels in [0, 1].
        generator: draws first perturbations, and which images are perturbed; on the device of the images.
    """

    def __init__(self, bound: float, generator: Generator) -> None:
        self._bound = bound
        self._generator = generator
        self._values: Tensor | None = None
        self._steps = 0

    def state(self) -> dict[str, Tensor]:
        """What a training needs to go on with the same one; on the CPU, empty before the first images."""
        if self._values is None:
            return {}
        return {"values": self._values.detach().cpu().clone(), "steps": torch.tensor(self._steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state."""
        self._values = None
        if state:
            self._values = state["values"].to(self._generator.device).clone().requires_grad_()
            self._steps = int(state["steps"])

    def added(self, pixels: Tensor) -> Tensor:
        """The images, about half of them perturbed.

        Args:
            pixels: float [N, 3, H, W] in [0, 1].

        Returns:
            Images of the same shape and range, in channels-last memory order. Where a value is cut to the range, the
            gradient passes as if it were not, or the search would end there.
        """
        if self._values is None or self._steps == _STEPS:
            drawn = torch.rand(pixels.shape[1:], generator=self._generator, device=pixels.device)
            self._values = ((2 * drawn - 1) * self._bound).requires_grad_()
            self._steps = 0
        perturbed = (uniform(pixels, self._generator) < _PERTURBED).view(-1, 1, 1, 1)
        free = pixels + perturbed * self._values
        cut = free.detach().clamp(0, 1) - free.detach()
        return (free + cut).contiguous(memory_format=torch.channels_last)

    def follow(self) -> None:
        """Takes a step to where the last loss grows, by its gradient."""
        if self._values is None or self._values.grad is None:
            raise RuntimeError("no loss of perturbed images was differentiated")
        moved = self._values.detach() + _STEP * self._bound * self._values.grad.sign()
        self._values = moved.clamp(-self._bound, self._bound).requires_grad_()
        self._steps += 1
