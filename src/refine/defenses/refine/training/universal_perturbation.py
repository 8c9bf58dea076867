"""Training against a perturbation that is the same for all images, and which is sought meanwhile.

Where an encoder follows a faint pattern that lies over the whole image, as that of Blended, or a slight warp of it, as
that of WaNet, a defender who does not know the trigger finds other patterns and warps that it follows as well: by the
gradient of the loss, which the training computes anyway. The encoder learns to answer as without them, for which no
label and no trigger is needed. After Shafahi et al. (AAAI 2020, "Universal Adversarial Training"); ours are the warp,
that some of the images stay as they are, and that the search begins anew from time to time, so that the encoder meets
several perturbations.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from refine.training.augment import uniform

_STEP = 0.2
"""How far each value moves in a step, as a share of its bound."""
_STEPS = 30
"""Steps that one perturbation is sought for."""
_PERTURBED = 0.5
"""Probability that an image is perturbed."""
_PLACES = 5
"""Rows and columns of places whose shifts are sought; between them they are interpolated."""


class UniversalPerturbation:
    """One perturbation of all images, and after some steps another one.

    Each process seeks its own; after an interrupted training, all go on from that of the first.

    Args:
        bound: largest change of a value, of pixels in [0, 1]; 0 changes none.
        warp: largest shift of a place in each direction, in pixels; 0 shifts none.
        generator: draws first perturbations, and which images are perturbed; on the device of the images.
    """

    def __init__(self, bound: float, warp: float, generator: Generator) -> None:
        self._bounds = {name: most for name, most in (("values", bound), ("shifts", warp)) if most}
        self._generator = generator
        self._sought: dict[str, Tensor] = {}
        self._steps = 0

    def state(self) -> dict[str, Tensor]:
        """What a training needs to go on with the same one; on the CPU, empty before the first images."""
        if not self._sought:
            return {}
        kept = {name: each.detach().cpu().clone() for name, each in self._sought.items()}
        return {**kept, "steps": torch.tensor(self._steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state."""
        device = self._generator.device
        self._sought = {name: each.to(device).clone() for name, each in state.items() if name != "steps"}
        for each in self._sought.values():
            each.requires_grad_()
        self._steps = int(state.get("steps", 0))

    def added(self, pixels: Tensor) -> Tensor:
        """The images, about half of them perturbed.

        Args:
            pixels: float [N, 3, H, W] in [0, 1].

        Returns:
            Images of the same shape and range, in channels-last memory order. Where a value is cut to the range, the
            gradient passes as if it were not, or the search would end there.
        """
        if not self._sought or self._steps == _STEPS:
            shapes = {"values": pixels.shape[1:], "shifts": (1, 2, _PLACES, _PLACES)}
            self._sought = {name: self._drawn(shapes[name], most) for name, most in self._bounds.items()}
            self._steps = 0
        perturbed = (uniform(pixels, self._generator) < _PERTURBED).view(-1, 1, 1, 1)
        moved = _shifted(pixels, self._sought["shifts"]) if "shifts" in self._sought else pixels
        if "values" in self._sought:
            moved = moved + self._sought["values"]
        free = torch.where(perturbed, moved, pixels)
        cut = free.detach().clamp(0, 1) - free.detach()
        return (free + cut).contiguous(memory_format=torch.channels_last)

    def follow(self) -> None:
        """Takes a step to where the last loss grows, by its gradient."""
        if not self._sought or any(each.grad is None for each in self._sought.values()):
            raise RuntimeError("no loss of perturbed images was differentiated")
        for name, each in self._sought.items():
            most = self._bounds[name]
            moved = each.detach() + _STEP * most * each.grad.sign()  # type: ignore[union-attr]
            self._sought[name] = moved.clamp(-most, most).requires_grad_()
        self._steps += 1

    def _drawn(self, shape: tuple[int, ...], most: float) -> Tensor:
        drawn = torch.rand(shape, generator=self._generator, device=self._generator.device)
        return ((2 * drawn - 1) * most).requires_grad_()


def _shifted(pixels: Tensor, shifts: Tensor) -> Tensor:
    """Warped images: each pixel is read from a place that lies so far off.

    Args:
        pixels: float [N, 3, H, W]; beyond the edge they go on as at it.
        shifts: float [1, 2, rows, columns], in pixels, to the right and down; smooth in between.

    Returns:
        Images of the same shape.
    """
    height, width = pixels.shape[2:]
    still = torch.eye(2, 3, dtype=pixels.dtype, device=pixels.device).unsqueeze(0)
    places = functional.affine_grid(still, [1, 3, height, width], align_corners=False)
    smooth = functional.interpolate(shifts, size=(height, width), mode="bilinear", align_corners=True)
    to_places = torch.tensor([2 / width, 2 / height], dtype=pixels.dtype, device=pixels.device)
    places = (places + smooth.permute(0, 2, 3, 1) * to_places).expand(len(pixels), -1, -1, -1)
    return functional.grid_sample(pixels, places, padding_mode="border", align_corners=False)
