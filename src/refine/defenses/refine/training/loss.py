"""The training loss of REFINE (Chen et al., ICLR 2025): cross-entropy on the remapped softmax + lambda * SupCon."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from refine.defenses.refine.training.params import Form

BASE_TEMPERATURE = 0.07


def utility(remapped: Tensor, pseudo_labels: Tensor, form: Form) -> Tensor:
    """Cross-entropy on the softmax; float32 scalar.

    The paper writes the categorical one, an average over N; the released code uses the element-wise binary one, an
    average over N * K, and lambda is tuned to its scale. Both are taken from logits: an answer that is certain to the
    last digit of a float has a probability of exactly 1, whose logarithms are cut off at -100 in torch's own binary
    loss and carry no gradient, and a transform that begins there (a classifier that is sure of its wrong answers)
    never learns.

    Args:
        remapped: float32 [N, K], logits after the label map.
        pseudo_labels: int64 [N].
        form: which of the two.
    """
    if form == "categorical":
        return functional.cross_entropy(remapped, pseudo_labels)
    log_probabilities = remapped.log_softmax(dim=1)
    largest = functional.one_hot(remapped.argmax(dim=1), remapped.shape[1]).bool()
    others = remapped.masked_fill(largest, -torch.inf).logsumexp(dim=1, keepdim=True)
    small = log_probabilities.exp().masked_fill(largest, 0)
    log_complements = torch.where(largest, others - remapped.logsumexp(dim=1, keepdim=True), torch.log1p(-small))
    wanted = functional.one_hot(pseudo_labels, remapped.shape[1]).bool()
    return -torch.where(wanted, log_probabilities, log_complements).mean()


def supcon(images: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss of transformed images, each counted as two equal views; scalar.

    The released code repeats every row of the batch. The same value comes without the copies: for row i, its
    positives are its own copy once and both copies of every other row of its label, and the denominator is
    both copies of all rows less one of itself.

    Args:
        images: float [N, ...], flattened and normalized here.
        labels: int64 [N], pseudo-labels.
        temperature: tau; the result carries the factor tau / 0.07 of the reference implementation.
    """
    rows = functional.normalize(images.flatten(1), dim=1)
    similarity = rows @ rows.T / temperature
    same = (labels.unsqueeze(1) == labels).to(similarity.dtype)
    own = similarity.diagonal()
    highest = similarity.detach().amax(dim=1)
    weights = torch.exp(similarity - highest.unsqueeze(1))
    denominator = torch.log(2 * weights.sum(dim=1) - weights.diagonal()) + highest
    positives = (2 * (similarity * same).sum(dim=1) - own) / (2 * same.sum(dim=1) - 1)
    return (denominator - positives).mean() * (temperature / BASE_TEMPERATURE)
