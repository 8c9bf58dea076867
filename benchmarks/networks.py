"""Builds the networks of a library without memory and tells which of them can be taken apart into body and head.

    python benchmarks/networks.py torchvision
    python benchmarks/networks.py timm --part 0/10      # every tenth, from the first on

Nothing is downloaded. A line for each network that has no linear head or is refused, then the counts.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterator

import torch

from refine.architectures.torchvision.params import VIT_SMALL
from refine.core.errors import UserError, command
from refine.core.registry import ARCHITECTURES, part
from refine.importing.published import published
from refine.models.apart import Split
from refine.models.architecture import Architecture, named

CLASSES = 7
SMALL_SIDE = 32


def architectures(library: str) -> Iterator[Architecture]:
    """All networks of a library."""
    if library == "timm":
        import timm

        names = timm.list_models()
    else:
        names = part(ARCHITECTURES, library, "network").models()  # type: ignore[union-attr]
    for name in names:
        yield named(library, model=name, **({"small_stem": True} if name == VIT_SMALL else {}))


def kind(architecture: Architecture) -> tuple[str, str]:
    """`split`, `whole` or `refused`, and a remark."""
    said = published(architecture)
    module = part(ARCHITECTURES, architecture.name, "network")
    try:
        with torch.device("meta"):
            made = module.build(architecture, CLASSES, said.side if said else SMALL_SIDE)  # type: ignore[union-attr]
    except UserError as error:
        return "refused", str(error)
    return ("split", "") if isinstance(made, Split) else ("whole", "")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.networks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=["torchvision", "timm"])
    parser.add_argument("--part", default="0/1", help="such as 0/10")
    given = parser.parse_args(arguments)
    first, step = map(int, given.part.split("/"))
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for architecture in [*architectures(given.library)][first::step]:
        found, remark = kind(architecture)
        counts[found] += 1
        if found != "split":
            sys.stdout.write(f"{found:8} {architecture.model_dump()['model']} {remark}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{dict(counts)}\n")


if __name__ == "__main__":
    command(main)
