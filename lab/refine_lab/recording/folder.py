"""Writing the folder of a recorded run."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from refine.core.files import new_folder, write_json
from refine_lab.projects import BARE_METRICS, PARAMS, PREVIEW, SplitStages, Stages
from refine_lab.recording.bare import figures_without_defense
from refine_lab.runs.parameters import read_params, split_of
from refine_lab.runs.record import Record
from refine_lab.runs.recorded import DIAGNOSTICS, RECORD

_COLORS = 256


def write(project: Path, home: Path, record: Record) -> Path:
    """Copies what a finished run left in a project into its folder below `home`, which is returned.

    Raises:
        UserError: something is missing.
    """
    stages, folder = Stages(record.name.defense), home / str(record.name)
    with new_folder(folder) as part:
        shutil.copy(project / PARAMS, part)
        shutil.copy(project / stages.metrics, part)
        shutil.copy(project / stages.diagnostics, part / DIAGNOSTICS)
        write_json(part / BARE_METRICS.name, figures_without_defense(project))
        split = split_of(read_params(project / PARAMS), record.name.defense)
        of_split = (SplitStages(split).picture,) if split else ()
        for picture in (PREVIEW, *stages.pictures, *of_split):
            if (project / picture).is_file():
                _shrink(project / picture, part / picture.name)
        write_json(part / RECORD, record.model_dump())
    return folder


def _shrink(picture: Path, target: Path) -> None:
    """Writes a picture with a palette: half as large, and the same to the eye."""
    with Image.open(picture) as drawn:
        drawn.convert("RGB").quantize(_COLORS, Image.Quantize.MAXCOVERAGE).save(target, optimize=True)
