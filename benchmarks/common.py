"""What all benchmarks share: options, rounds that interleave what is compared, the table, and the JSON."""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from refine.core.errors import UserError
from refine.core.files import write_json
from refine.core.machine import machine
from refine.core.progress import progress
from refine.models.device import Compute, compute

PROJECT = Path(__file__).parents[1]

_STATUS = Path("/proc/self/status")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16")
_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "webdataset", "dvc", "onnxruntime")


def parser(name: str, description: str, repetitions: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("--out", type=Path, default=PROJECT / f"benchmarks/results/{name}.json", help="takes the JSON")
    made.add_argument("--repetitions", type=int, default=repetitions, help="rounds (default: %(default)s)")
    return made


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition of the same work."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Median of the repetitions."""
        return statistics.median(self.seconds)

    def summary(self, units: float | None = None, unit: str = "") -> dict[str, Any]:
        """For the JSON.

        Args:
            units: of work in one repetition; with them, the rate is included.
            unit: their name, plural.
        """
        summary: dict[str, Any] = {"seconds": self.seconds, "seconds_median": self.median}
        return summary if units is None else {**summary, f"{unit}_per_second": units / self.median}


def interleaved(contestants: Mapping[str, Callable[[], float]], repetitions: int, what: str) -> dict[str, Timing]:
    """Measures contestants in rounds, so that what disturbs the machine for a while disturbs all of them.

    Every second round goes backwards.

    Args:
        contestants: each does its work once and says how many seconds it took.
        repetitions: rounds.
        what: is measured, for the progress bar.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in progress(range(repetitions), what, repetitions, "round"):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            seconds[name].append(contestants[name]())
    return {name: Timing(taken) for name, taken in seconds.items()}


class Report:
    """What a benchmark leaves: a table on the terminal, and JSON with machine, settings and every repetition.

    Args:
        name: of the benchmark.
        arguments: its options.
        needs_torch: False for one that uses no device.
    """

    def __init__(self, name: str, arguments: argparse.Namespace, needs_torch: bool = True) -> None:
        self.compute = compute(machine()) if needs_torch else Compute(torch.device("cpu"), torch.get_num_threads())
        self._arguments = arguments
        self._content = {"benchmark": name, "machine": machine_entries(self.compute)}

    def write(self, results: Any, headers: Sequence[str], rows: Sequence[Sequence[str]], **more: Any) -> None:
        """Prints the table and writes the JSON.

        Args:
            results: for the JSON.
            headers: of the table.
            rows: of the table.
            more: entries of the JSON beside the results.
        """
        settings = vars(self._arguments).copy()
        out: Path = settings.pop("out")
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {**self._content, "settings": settings, **more, "results": results})
        sys.stdout.write(f"{table(headers, rows)}\n{out}\n")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns, the first one to the left and the others to the right."""
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def number(value: float | None, digits: int = 3) -> str:
    """A figure for the table: so many significant digits, thousands set apart, a dash for none."""
    if value is None:
        return "-"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{places}f}"


def memory_of(name: str) -> int:
    """Bytes of this process: `VmHWM` the peak, `VmRSS` now.

    Raises:
        UserError: the system does not tell.
    """
    found = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None:
        raise UserError(f"{_STATUS} tells no {name}; peaks can be measured on Linux alone")
    return int(found[1]) * 1024


def machine_entries(used: Compute) -> dict[str, Any]:
    """Processor, device and versions; nothing that tells the time or names the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    entries: dict[str, Any] = {
        **_processor(),
        "cores": cores,
        "load_average_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _installed(name))},
        "cuda_matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        **used.runtime,
    }
    if used.device.type == "cuda":
        entries |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": _driver(),
            "device_memory_bytes": torch.cuda.get_device_properties(used.device).total_memory,
        }
    return entries


def _processor() -> dict[str, Any]:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    words = set(text.split())
    return {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cpu_flags": [flag for flag in _FLAGS if flag in words],
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    path = Path("/proc/driver/nvidia/version")
    found = re.search(r"\d+\.\d+(?:\.\d+)?", path.read_text(encoding="utf-8")) if path.is_file() else None
    return found[0] if found else None
