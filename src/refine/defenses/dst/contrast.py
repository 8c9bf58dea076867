"""The semi-supervised contrastive loss of D-ST."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from refine.defenses.dst.defense import Positives

BASE_TEMPERATURE = 0.07


def contrast(views: Tensor, labels: Tensor, clean: Tensor, temperature: float, positives: Positives) -> Tensor:
    """The loss of each view, whose mean is L of `defense.py`; float32 [2N].

    The mean over positives is linear in the views, so it comes from a sum per class: the similarities of all pairs, the
    only [2N, 2N] matrix here, are needed for the denominators alone.

    Args:
        views: float32 [2N, D], normalized; the second view of row i is row i + N, and of row i + N row i.
        labels: int64 [N], of which only those of clean samples matter for their own rows.
        clean: bool [N], samples whose labels are believed.
        temperature: tau.
        positives: see `Params`.
    """
    others = views.roll(len(labels), dims=0)
    labels, clean = labels.repeat(2), clean.repeat(2)
    classes = functional.one_hot(labels).to(views.dtype)
    if positives == "label_clean_only":
        classes = classes * clean.unsqueeze(1)
    counts = classes.sum(dim=0)[labels].unsqueeze(1)
    same = ((classes.T @ views)[labels] - views) / (counts - 1).clamp(min=1)
    wanted = torch.where(clean.unsqueeze(1), same, others)
    similarity = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    losses = similarity.logsumexp(dim=1) - (views * wanted).sum(dim=1) / temperature
    return losses * (temperature / BASE_TEMPERATURE)
