"""What an import needs of a file of weights, and the weights of a state dict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from refine.importing import matching
from refine.importing.matching import Build
from refine.models.card import load_exact


class Weights(Protocol):
    """Weights that a file holds, for a network whose architecture the user names."""

    def classes(self, build: Build, name: str) -> int:
        """K; `name` is of the network, for messages, as below.

        Raises:
            UserError: the weights do not tell.
        """

    def misfit(self, network: nn.Module, name: str) -> str | None:
        """Why they do not fit a network, which may have no memory, in one sentence; None where they do."""

    def fill(self, network: nn.Module, name: str, side: int) -> None:
        """Gives a network the weights, which fit; `side` is of its images, in pixels.

        Raises:
            UserError: they are not finite, or the network does not answer as the file says.
        """


@dataclass(frozen=True)
class StateDict:
    """The tensors of a network's state by their names; see `Weights`."""

    state: dict[str, Tensor]
    path: Path

    def classes(self, build: Build, name: str) -> int:
        return matching.class_count(build, self.state, self.path, name)

    def misfit(self, network: nn.Module, name: str) -> str | None:
        return matching.misfit(self._own(network), network, self.path, name)

    def fill(self, network: nn.Module, name: str, side: int) -> None:
        del name, side
        load_exact(network, matching.completed(self._own(network), network), self.path)

    def _own(self, network: nn.Module) -> dict[str, Tensor]:
        plain = matching.without_prefixes(self.state, list(matching.library_names(network).values()))
        return matching.renamed(plain, network)
