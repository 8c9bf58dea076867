"""The weights that count: the last ones, or a moving average of all."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def _toward(decay: float) -> Any:
    return get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]


class Average:
    """Exponential moving average of a module's weights and batch statistics.

    Args:
        module: that is trained.
        decay: share of the average that each step keeps; 0 keeps none, and the module's own weights count.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._averaged: AveragedModel | None = None
        if decay:
            self._averaged = AveragedModel(module, multi_avg_fn=_toward(decay), use_buffers=True)

    def update(self) -> None:
        """Takes the weights of a step in."""
        if self._averaged is not None:
            self._averaged.update_parameters(self._module)

    def weights(self) -> dict[str, Tensor]:
        """State of the module with the weights that count."""
        if self._averaged is None:
            return self._module.state_dict()
        averaged: dict[str, Tensor] = self._averaged.module.state_dict()
        return averaged

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {} if self._averaged is None else self._averaged.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        if self._averaged is not None:
            self._averaged.load_state_dict(state)
