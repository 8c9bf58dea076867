"""Fine-tuning that draws the last layer anew and moves it away from the given one, at its former length (FST, D3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.optim import Optimizer

from refine.defending.retraining import Retraining
from refine.models.classifier import Classifier, head_of


class Head:
    """The last layer of a network, and the weights that it was given with.

    Args:
        classifier: whose network has a linear layer `head`.
        name: of the defense, for messages.

    Attributes:
        weight: the parameter of the layer, float [K, D].
        bias: the parameter of the layer, float [K], or None.
        given: the weights when this was made, float [K, D].

    Raises:
        UserError: there is no such layer.
    """

    def __init__(self, classifier: Classifier, name: str) -> None:
        layer = head_of(classifier.network, name)
        self.weight, self.bias = layer.weight, layer.bias
        self.given = layer.weight.detach().clone()

    def draw(self, bound: float, seed: int, bias: bool) -> None:
        """Draws weights, and where asked the bias, uniformly from -bound..bound."""
        generator = Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in (self.weight, self.bias if bias else None):
                if parameter is not None:
                    parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))

    @torch.no_grad()
    def project(self) -> None:
        """Scales the weights to the length (Frobenius norm) of the given ones."""
        self.weight.mul_(self.given.norm() / self.weight.norm())

    def alignment(self) -> Tensor:
        """The inner product of weights and given weights, a scalar with gradient."""
        return (self.weight * self.given).sum()

    def distance(self) -> Tensor:
        """The Euclidean distance of weights and given weights, a scalar with gradient."""
        distance: Tensor = (self.weight - self.given).norm()
        return distance

    def cosine(self) -> Tensor:
        """The cosine between weights and given weights, a scalar."""
        return functional.cosine_similarity(self.weight.flatten(), self.given.flatten(), dim=0)


class HeadReset(Retraining):
    """Retraining that projects the last layer after each step of the optimizer.

    Args:
        head: of the classifier.
        of: arguments of `Retraining`.
    """

    def __init__(self, head: Head, *of: Any) -> None:
        super().__init__(*of)
        self.head = head

    def update(self, optimizer: Optimizer) -> None:
        """See `training.loop.Updates`."""
        optimizer.step()
        self.head.project()
