"""Where arithmetic runs: device, threads and precision, resolved once for a stage."""

from __future__ import annotations

import contextlib
import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.machine import DEFAULTS, Machine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compute:
    """The resolved device.

    Attributes:
        device: where networks and batches live.
        threads: CPU threads of arithmetic.
        rank: of this process among those that train together.
        world: number of them.
        machine: settings, of which training sets take workers and memory.
    """

    device: torch.device
    threads: int
    rank: int = 0
    world: int = 1
    machine: Machine = DEFAULTS

    @property
    def facts(self) -> dict[str, Any]:
        """For the runtime record; `instructions` are the newest that torch uses on this processor."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        told = {"device": str(self.device), "device_name": name, "threads": self.threads, "processes": self.world}
        return {**told, "instructions": torch.backends.cpu.get_cpu_capability()}

    def precision(self, wanted: str) -> str:
        """`fp32` or `bf16`: what `auto` means on this device.

        `auto` takes bf16 where the processor multiplies in it; elsewhere it would be emulated and slow.
        """
        if wanted != "auto":
            return wanted
        if self.device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        return "bf16" if _cpu_multiplies_bf16() else "fp32"

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """The context in which networks run; losses stay outside."""
        if precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def to_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32 where it is narrower, for all that comes after the networks."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def compute(settings: Machine) -> Compute:
    """Resolves the device and the threads that were asked for, and says in one line what was taken.

    Raises:
        UserError: a CUDA device was asked for that cannot be used.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    wanted = settings.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"REFINE_DEVICE={settings.device}, but torch finds {torch.cuda.device_count()} usable CUDA devices here; "
            "set REFINE_DEVICE=cpu or check the driver with nvidia-smi"
        )
    device = torch.device(wanted)
    resolved = Compute(device, torch.get_num_threads(), machine=settings)
    log.info("device %s (REFINE_DEVICE=%s), %d CPU threads", device, settings.device, resolved.threads)
    return resolved


def _cpu_multiplies_bf16() -> bool:
    flags = Path("/proc/cpuinfo")
    words = set(flags.read_text(encoding="utf-8").split()) if flags.is_file() else set()
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
