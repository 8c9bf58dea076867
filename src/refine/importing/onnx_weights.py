"""Weights of an ONNX file in the network that it was made from.

What a defense needs of a classifier, gradients and layers that can be trained, an ONNX file does not give. But its
weights fit the network that it was exported from, if the user says which one that was. Exporters fold batch
normalization into the convolution before it, which is undone here as far as answers go. Whether the network then
answers as onnxruntime computes the file is the only proof that everything came to its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.fx import symbolic_trace
from torch.nn.modules.batchnorm import _BatchNorm

from refine.core.errors import UserError
from refine.core.outside import first_line
from refine.importing.matching import Build
from refine.importing.onnx_file import REMEDY, Kind, Layer, OnnxFile
from refine.models.device import to_float32
from refine.models.probe import probe

_TOLERANCE = 1e-3
_NOISE = 16


@dataclass(frozen=True)
class Place:
    """A layer of a network, and the batch normalization that alone takes what it gives."""

    layer: nn.Module
    normalization: _BatchNorm | None

    @property
    def kind(self) -> Kind:
        """See `Layer`."""
        if isinstance(self.layer, _BatchNorm):
            return "normalization"
        return "linear" if isinstance(self.layer, nn.Linear) else "convolution"

    def takes(self, layer: Layer) -> bool:
        """Whether a layer of the file has this kind and these shapes."""
        own: Tensor = self.layer.weight  # type: ignore[assignment]
        vectors = [each for each in (layer.bias, layer.mean, layer.variance) if each is not None]
        sized = all(vector.shape == own.shape[:1] for vector in vectors)
        return layer.kind == self.kind and layer.weight.shape == own.shape and sized

    @torch.no_grad()
    def fill(self, layer: Layer) -> _BatchNorm | None:
        """Takes the weights of a layer.

        Returns:
            The batch normalization that was folded away in the file, and here changes nothing but the bias.
        """
        own: Tensor = self.layer.weight  # type: ignore[assignment]
        own.copy_(layer.weight)
        if isinstance(self.layer, _BatchNorm):
            _set(self.layer, layer.mean, layer.variance, layer.weight, layer.bias)  # type: ignore[arg-type]
            return None
        bias = self.layer.bias
        if self.normalization is None:
            if isinstance(bias, Tensor):
                bias.copy_(layer.bias)
            return None
        if isinstance(bias, Tensor):
            bias.zero_()
        ones = torch.ones_like(layer.bias)
        _set(self.normalization, torch.zeros_like(layer.bias), ones, ones, layer.bias)
        return self.normalization


def _set(layer: _BatchNorm, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor) -> None:
    layer.get_buffer("running_mean").copy_(mean)
    layer.get_buffer("running_var").copy_(variance - layer.eps)
    layer.weight.copy_(scale)
    layer.bias.copy_(shift)


class OnnxWeights:
    """The weights of an ONNX file; see `importing.weights.Weights`.

    Args:
        file: what was read.
    """

    def __init__(self, file: OnnxFile) -> None:
        self.path, self.layers, self.probabilities = file.path, file.layers, file.probabilities

    def classes(self, build: Build, name: str) -> int:
        """K, the outputs of the last layer."""
        del build, name
        return len(self.layers[-1].bias)

    def misfit(self, network: nn.Module, name: str) -> str | None:
        """Why the layers do not fit a network, in one sentence; None where they do."""
        another = "give the architecture that it was trained as"
        own = places(network, name)
        if len(own) != len(self.layers):
            return f"{self.path} has {len(self.layers)} layers with weights, {name} has {len(own)}; {another}"
        try:
            self._assigned(own)
        except StopIteration:
            return f"{self.path} has layers of other sizes than {name}; {another}"
        return None

    def fill(self, network: nn.Module, name: str, side: int) -> None:
        """Gives a network the weights, and batch normalization statistics as noise has them, see `restore_statistics`.

        Args:
            network: into which they fit.
            name: of it, for messages.
            side: of its images.

        Raises:
            UserError: it answers otherwise than the file.
        """
        filled = [place.fill(layer) for place, layer in self._assigned(places(network, name))]
        noise = torch.randn(_NOISE, 3, side, side, generator=Generator().manual_seed(0))
        network.eval()
        self.compare(network, torch.cat([probe(side), noise]))
        restore_statistics(network, [layer for layer in filled if layer is not None], noise)

    def _assigned(self, own: list[Place]) -> Iterator[tuple[Place, Layer]]:
        """Each place with the first layer of its size that is left; raises StopIteration if there is none."""
        left = list(self.layers)
        found = []
        for place in own:
            number = next(number for number, layer in enumerate(left) if place.takes(layer))
            found.append((place, left.pop(number)))
        return iter(found)

    @torch.no_grad()
    def compare(self, network: nn.Module, images: Tensor) -> None:
        """Compares the answers of a network with those of the file.

        Args:
            network: in eval mode, filled.
            images: float [N, 3, side, side], as the network takes them.

        Raises:
            UserError: they differ, or the file does not run.
        """
        run = _session(self.path, images.shape[-1])
        wanted = torch.cat([run(image[None]) for image in images])
        found = to_float32(network(images))
        found = found.softmax(dim=1) if self.probabilities else found
        bound = _TOLERANCE * float(wanted.abs().max())
        difference = float((found - wanted).abs().max()) if found.shape == wanted.shape else float("inf")
        if not difference <= bound:
            raise UserError(
                f"{self.path} has the layers of this architecture but answers otherwise (by up to {difference:.2g}); "
                f"give the architecture that it was trained as, or {REMEDY}"
            )


def _session(path: Path, side: int) -> Callable[[Tensor], Tensor]:
    """The file as a function of an image float [1, 3, side, side], computed by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4

    def run(image: Tensor) -> Tensor:
        try:
            (given,) = session.get_inputs()
            count = given.shape[0] if isinstance(given.shape[0], int) else 1  # some files take so many and no others
            answers = session.run(None, {given.name: image.expand(count, -1, -1, -1).numpy()})
        except Exception as error:  # noqa: BLE001 (the runtime has classes of its own for what is wrong)
            raise UserError(
                f"{path} does not run on an image of {side} pixels ({first_line(error)}); give the side of its images "
                f"by --input-side, or {REMEDY}"
            ) from None
        return torch.from_numpy(answers[0][:1]).float()

    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (as above)
        raise UserError(f"{path} does not run in onnxruntime ({first_line(error)}); {REMEDY}") from None
    return run


def places(network: nn.Module, name: str) -> list[Place]:
    """The layers of a network that have weights, in the order in which they compute.

    Raises:
        UserError: the order cannot be found, or there are layers of other kinds.
    """
    try:
        nodes = list(symbolic_trace(network).graph.nodes)
    except Exception as error:  # noqa: BLE001 (tracing runs the network's own code on stand-ins for tensors)
        raise UserError(f"what {name} computes cannot be followed ({first_line(error)}); {REMEDY}") from None
    modules = dict(network.named_modules())
    of = {node: modules[str(node.target)] for node in nodes if node.op == "call_module"}
    found: dict[Any, Place] = {}
    for node, module in of.items():
        if isinstance(module, _BatchNorm):
            if not module.affine or module.running_mean is None:
                raise UserError(f"{name} normalizes without scale and shift, which ONNX does not tell apart; {REMEDY}")
            (before,) = node.all_input_nodes
            if before in found and isinstance(found[before].layer, nn.Conv2d) and len(before.users) == 1:
                found[before] = replace(found[before], normalization=module)
                continue
        elif not isinstance(module, nn.Conv2d | nn.Linear):
            if any(True for _ in module.parameters()):
                raise UserError(
                    f"{name} has layers of the kind {type(module).__name__}, which ONNX spells in pieces; {REMEDY}"
                )
            continue
        found[node] = Place(module, None)
    return list(found.values())


@torch.no_grad()
def restore_statistics(network: nn.Module, layers: Sequence[_BatchNorm], images: Tensor) -> None:
    """Gives batch normalization the statistics of what it gets from images, without a change of the answers.

    Folding loses them, and a training that begins from this network normalizes by those of its batches.

    Args:
        network: in eval mode.
        layers: of it, whose statistics are lost.
        images: normalized, float [N, 3, H, W].
    """

    def look(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        if not isinstance(layer, _BatchNorm):
            return
        dims = [dim for dim in range(given[0].dim()) if dim != 1]
        variance, mean = torch.var_mean(given[0], dim=dims, correction=0)
        before, spread = layer.get_buffer("running_mean"), (layer.get_buffer("running_var") + layer.eps).sqrt()
        shift = layer.bias + layer.weight * (mean - before) / spread
        _set(layer, mean, variance + layer.eps, layer.weight * (variance + layer.eps).sqrt() / spread, shift)

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
