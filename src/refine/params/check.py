"""Checks a whole parameters file, so that a slip in the last section is found before the first stage runs.

python -m refine.params.check [FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from refine.backdoor.params import TrainBackdoorParams
from refine.core.errors import UserError, command
from refine.core.machine import machine
from refine.core.params import ParamsFile, unknown
from refine.core.registry import ARCHITECTURES, ATTACKS, SOURCES, component, names
from refine.defending import params as further_defenses
from refine.defenses.refine.training.params import TrainRefineParams
from refine.download.params import DownloadParams
from refine.evaluation.params import EvaluateParams
from refine.poisoning.params import PoisonDatasetParams

ROOMS = {"sources": SOURCES, "attacks": ATTACKS}


def check(path: Path) -> None:
    """Checks every section, also the settings of attacks and sources that are not chosen.

    Raises:
        UserError: the first thing that is wrong.
    """
    file = ParamsFile(path)
    download = file.section("download", DownloadParams)
    poison = file.section("poison_dataset", PoisonDatasetParams)
    train = file.section("train_backdoor", TrainBackdoorParams)
    file.section("train_refine", TrainRefineParams)
    file.section("evaluate", EvaluateParams)
    further_defenses.check(file)
    for parameter, name, room in (
        ("download.source", download.source, ROOMS["sources"]),
        ("poison_dataset.attack.name", poison.attack.name, ROOMS["attacks"]),
        ("train_backdoor.network.name", train.network.name, ARCHITECTURES),
    ):
        if name not in names(room):
            raise UserError(f"{path}: {parameter}: {unknown(name, names(room))} (known are {', '.join(names(room))})")
    for section, name in (("sources", download.source), ("attacks", poison.attack.name)):
        for entry in sorted({*file.names_in(section), name}):
            file.component(section, entry, component(ROOMS[section], entry, f"{path}: {section}").Params)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m refine.params.check",
        description="Checks a whole parameters file, and the settings of the machine; silent where all is right.",
    )
    parser.add_argument("file", nargs="?", type=Path, default=Path("params.yaml"), help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    machine()
    check(given.file)


if __name__ == "__main__":
    command(main)
