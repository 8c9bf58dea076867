"""Training of BCU: a student with the given weights, some of them new, learns the given classifier's answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refine.defending.retraining import Retraining, fresh, retrained, trainable
from refine.defending.train import Task
from refine.defenses.bcu.defense import Params
from refine.models import classifier as classifiers
from refine.models.device import to_float32
from refine.training.batches import Batch
from refine.training.training_set import open_training_set

_HEAD = "head"
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def train(task: Task) -> str:
    """See `defending.train.Task`."""
    params: Params = task.settings
    compute, recipe = task.compute, params.recipe
    images, _ = open_training_set(task.images, (), compute)
    student, new = trainable(task), fresh(task)
    replace(student.network, new.network, probabilities(new.network, params.replaced, params.replaced_in_head))
    teacher = classifiers.folded(task.classifier.to(compute.device))
    precision = compute.precision(recipe.precision)

    def loss(logits: Tensor, pixels: Tensor, _: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), compute.autocast(precision):
            said = to_float32(teacher(pixels))
        heat = temperature(retraining.epoch, recipe.epochs, params.warming)
        pair = (logits, said) if params.divergence == "student_teacher" else (said, logits)
        return {
            "loss": divergence(*pair, heat),
            "agreement": (logits.argmax(dim=1) == said.argmax(dim=1)).float().mean(),
        }

    retraining = Retraining(student, images, recipe, loss, compute)
    return retrained(task, retraining)


def temperature(epoch: int, epochs: int, warming: float) -> float:
    """T in an epoch, counted from 1: it rises from 1 to 1 + `warming` in the last one."""
    return 1 + warming * epoch / epochs


def divergence(of: Tensor, reference: Tensor, heat: float) -> Tensor:
    """KL(softmax(of / T) || softmax(reference / T)), the mean over images, without a factor T^2.

    Args:
        of: logits float [N, K].
        reference: logits float [N, K].
        heat: T.
    """
    first, second = ((logits / heat).log_softmax(dim=1) for logits in (of, reference))
    return (first.exp() * (first - second)).sum(dim=1).mean()


def probabilities(network: nn.Module, by_depth: list[float], head: float) -> dict[str, float]:
    """With which probability entries of each parameter are replaced, by the parameters' names.

    Args:
        network: freshly built, as its parameters still tell which of them are learned.
        by_depth: probabilities of groups of layers from the input on, without the head. Other numbers of groups than
            there are values take them by their relative depth, interpolated; a single one takes the last value.
        head: probability of the last linear layer.

    Returns:
        Those of learned weights and biases of convolutions and linear layers; all others are not replaced.
    """
    layers = {
        f"{name}.{own}": ".".join(name.split(".")[:2])
        for name, module in network.named_modules()
        if isinstance(module, _LAYERS)
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    }
    groups = list(dict.fromkeys(group for group in layers.values() if group != _HEAD))
    shares = {group: _at_depth(by_depth, number, len(groups)) for number, group in enumerate(groups)}
    shares[_HEAD] = head
    return {name: shares[group] for name, group in layers.items()}


def _at_depth(values: list[float], number: int, count: int) -> float:
    """The value of one of so many groups, numbered from 0."""
    last = len(values) - 1
    place = number * last / (count - 1) if count > 1 else last
    below = int(place)
    return values[below] + (place - below) * (values[min(below + 1, last)] - values[below])


@torch.no_grad()
def replace(network: nn.Module, new: nn.Module, shares: dict[str, float]) -> None:
    """Replaces each entry of the named parameters, with its probability, by that of a new network of the same kind.

    What is replaced is drawn from torch's global random state. It goes on behind the draws of the new network: with the
    same ones, entries would be replaced where the new ones are small.
    """
    drawn = dict(new.named_parameters())
    for name, parameter in network.named_parameters():
        if name in shares:
            chosen = torch.rand(parameter.shape) < shares[name]
            parameter.copy_(torch.where(chosen.to(parameter.device), drawn[name], parameter))
