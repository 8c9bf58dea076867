"""An attacker who expects REFINE and trains the classifier together with transforms of the attacker's own.

The paper's adaptive attacker knows the label map; its reviewers found that attack too weak. This one, which is ours,
also knows the method: U-Nets learn on benign images what the defender's will learn, while the classifier learns to
answer what a U-Net makes of a triggered image with the class that the map takes to the target. The question is whether
that carries over to the transform that the defender trains later, and to another map. Where there are several U-Nets,
each with weights of its own, the backdoor cannot settle for one of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refine.backdoor.params import AdaptiveParams
from refine.defenses.refine.model.label_map import derangement, remap
from refine.defenses.refine.model.transforms.unet.transform import UNet
from refine.models.classifier import Classifier
from refine.models.device import to_float32


class WithTransform(nn.Module):
    """A classifier beside the defenses that its attacker expects.

    Args:
        classifier: it is trained as well; its network is part of this module.
        classes: K.
        params: of the attacker.
    """

    permutation: Tensor

    def __init__(self, classifier: Classifier, classes: int, params: AdaptiveParams) -> None:
        super().__init__()
        self.classifier = classifier
        self.transforms = nn.ModuleList(_begun(params.first_channels) for _ in range(params.transforms))
        self.register_buffer("permutation", derangement(classes, params.permutation_seed), persistent=False)

    def forward(self, pixels: Tensor, poisoned: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the images, and remapped ones of what a transform makes of them, float [N, K] each.

        Each transform gets an equal part of the batch, or nearly, whose order is random. It learns from benign images
        alone, as the defender's will, and the classifier from all of them. Both halves go through the classifier
        together, so that its batch statistics are those of both.

        Args:
            pixels: float [N, 3, H, W] in [0, 1].
            poisoned: bool [N].
        """
        parts = zip(self.transforms, pixels.tensor_split(len(self.transforms)), strict=True)
        drawn = to_float32(torch.cat([transform(part) for transform, part in parts if len(part)])).clamp(0, 1)
        drawn = torch.where(poisoned.view(-1, 1, 1, 1), drawn.detach(), drawn)
        logits, through = self.classifier(torch.cat([pixels, drawn])).chunk(2)
        return logits, remap(through, self.permutation)


def _begun(first_channels: int) -> UNet:
    """A U-Net of random weights, whose pictures are gray at first, as those of the defender's."""
    transform = UNet(first_channels)
    nn.init.constant_(transform.outlet.bias, 0.5)  # type: ignore[arg-type]
    return transform
