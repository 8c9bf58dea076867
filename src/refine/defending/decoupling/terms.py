"""What is minimized where a backdoor is inverted by decoupling features, see `inversion`."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from refine.defending.decoupling.inside import Inside
from refine.defending.decoupling.params import DecouplingParams
from refine.defending.finetuning import accuracy
from refine.models.device import to_float32

BENIGN_WEIGHT = 0.01
_PRETRAINED_BOUND = 0.1


class Mask(nn.Module):
    """A mask over a map, float [1, C, h, w] in (0, 1), drawn at random."""

    def __init__(self, like: Tensor, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(like.shape[1:], generator=Generator().manual_seed(seed))
        self.theta = nn.Parameter(drawn[None].to(like.device))

    def forward(self) -> Tensor:
        return self.theta.tanh() / 2 + 0.5


def pretraining_terms(inside: Inside, generator: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """How far a generator is from leaving normalized images float [B, 3, H, W] as they are."""
    with torch.no_grad():
        before = inside.answer(images)
    made = to_float32(generator(images))
    after = inside.answer(made)
    apart = functional.mse_loss(made, images)
    own, wanted = (answer.logits.log_softmax(dim=1) for answer in (after, before))
    answers = functional.kl_div(own, wanted, reduction="batchmean", log_target=True)
    features = functional.mse_loss(after.map, before.map)
    weight = torch.where(apart.detach() > _PRETRAINED_BOUND, 100.0, 0.01)
    return {"loss": answers + features + weight * apart, "answers": answers, "features": features}


def noisy(images: Tensor, deviation: float, generator: Generator) -> Tensor:
    """Images with normal noise."""
    return images + deviation * torch.randn(images.shape, generator=generator, device=images.device)


def mask_terms(inside: Inside, mask: Tensor, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """How much better the answers are with the features that a mask keeps than with the others."""
    kept, left = inside.answer(images, mask).logits, inside.answer(images, 1 - mask).logits
    with_kept, with_left = (functional.cross_entropy(logits, labels) for logits in (kept, left))
    return {"loss": with_kept - with_left, "accuracy": accuracy(kept, labels), "kept": mask.mean()}


def generator_terms(
    made: Tensor, images: Tensor, moved: Tensor, mask: Tensor, params: DecouplingParams
) -> dict[str, Tensor]:
    """The generator's loss.

    Args:
        made: changed images, float32 [B, 3, H, W], normalized.
        images: before.
        moved: how far their maps moved, float32 [B, C, h, w].
        mask: of the round.
        params: with the bounds.
    """
    image = functional.mse_loss(made, images)
    benign, other = ((weight * moved).square().mean() for weight in (mask, 1 - mask))
    far = (image > params.image_bound) | (benign > params.feature_bound)
    loss = torch.where(far, image, BENIGN_WEIGHT * benign - other)
    return {"loss": loss, "image": image, "benign": benign, "other": other}
