"""Device, threads and precision of a stage."""

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
        device: of networks and batches.
        threads: CPU threads for arithmetic.
        rank: of this process in a distributed training.
        world: number of processes.
        machine: settings of the machine; training sets use its workers and memory.
    """

    device: torch.device
    threads: int
    rank: int = 0
    world: int = 1
    machine: Machine = DEFAULTS

    @property
    def runtime(self) -> dict[str, Any]:
        """Entries of the runtime record; `instructions` is the instruction set that torch uses on this processor."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "device": str(self.device),
            "device_name": name,
            "threads": self.threads,
            "processes": self.world,
            "instructions": torch.backends.cpu.get_cpu_capability(),
        }

    def precision(self, wanted: str) -> str:
        """Resolves `auto` to `fp32` or `bf16`.

        `auto` means bf16 if the processor multiplies in bfloat16; otherwise it would be emulated and slow.
        """
        if wanted != "auto":
            return wanted
        if self.device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        return "bf16" if _cpu_multiplies_bf16() else "fp32"

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Autocast context for networks; losses are computed outside of it."""
        if precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def to_float32(tensor: Tensor) -> Tensor:
    """Converts outputs of networks in lower precision to float32; wider types are kept."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def compute(settings: Machine) -> Compute:
    """Resolves device and threads of the settings, and logs the result.

    Raises:
        UserError: the requested CUDA device cannot be used.
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
