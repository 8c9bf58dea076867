"""Scores of all signs for finished models, as CSV: a row for each model and sign.

The user's images are test images, which no model was trained on. For signs in `TRIGGERED`, those of an attacked model
include some with its trigger: without any, such a sign has nothing to find.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor

from refine.core.documents import read_document
from refine.core.errors import UserError
from refine.core.files import new_file
from refine.core.machine import Machine
from refine.core.registry import names
from refine.defending.loading import load
from refine.models import classifier as classifiers
from refine.models.device import Compute, compute
from refine.proof.judging.examine import found, subject
from refine.proof.judging.params import SIGNS, SignsParams
from refine.proof.judging.sign import Subject
from refine.shards.reading.reader import read_split
from refine_lab.calibration.about import DONE, About

log = logging.getLogger(__name__)

TRIGGERED = {"changed_answers": 0.02}
"""Share of images with the trigger among those of an attacked model, by the name of a sign."""
DEFENDED = Path("models/refine")
BACKDOOR = Path("models/backdoor")
COLUMNS = (
    "model", "half", "data", "attack", "target", "sign", "score", "weak", "class", "hit", "images", "seconds",
)  # fmt: skip


def measure(folders: list[Path], out: Path, params: SignsParams, machine: Machine, signs: Sequence[str] = ()) -> None:
    """Writes a row for each model and sign that the file does not have yet, after each model.

    Args:
        folders: of finished models, with a `model.json`.
        out: the CSV file; its rows are sorted by model and sign.
        params: of the signs.
        machine: its settings.
        signs: which; all of them if empty.

    Raises:
        UserError: a folder is not finished or damaged, or a sign is unknown.
    """
    signs = list(dict.fromkeys(signs))
    for sign in signs:
        if sign not in names(SIGNS):
            raise UserError(f"there is no sign {sign}; there are {', '.join(names(SIGNS))}")
    rows: list[Any] = pd.read_csv(out, keep_default_na=False).to_dict("records") if out.is_file() else []
    resolved = compute(machine)
    for folder in folders:
        there = {row["sign"] for row in rows if row["model"] == folder.name}
        if wanted := [sign for sign in signs or names(SIGNS) if sign not in there]:
            rows = sorted(rows + _rows(folder, wanted, params, resolved), key=lambda row: (row["model"], row["sign"]))
            with new_file(out) as partial:
                pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(partial, index=False)


def finished(home: Path) -> list[Path]:
    """Folders of finished models, sorted by name.

    Raises:
        UserError: there is none.
    """
    folders = sorted(path.parent for path in home.glob(f"*/{DONE}"))
    if not folders:
        raise UserError(f"{home} holds no finished model; `refine calibrate make {home}` makes them")
    return folders


def _rows(folder: Path, signs: list[str], params: SignsParams, compute: Compute) -> list[dict[str, Any]]:
    about = read_document(folder / DONE, About, f"remove {folder} and make it again")
    subjects: dict[float, Subject] = {}
    rows = []
    for sign in signs:
        triggered = TRIGGERED.get(sign, 0.0)
        if triggered not in subjects:
            subjects[triggered] = _subject(folder, triggered, params, compute)
        started = time.process_time()
        finding = found(sign, subjects[triggered], params)
        seconds = time.process_time() - started
        scores = finding.scores
        best = max(scores, key=lambda name: scores[name]) if scores else ""
        target = None if about.target is None else subjects[triggered].classes[about.target]
        rows.append(
            {
                "model": folder.name,
                "half": about.half,
                "data": about.data,
                "attack": about.attack,
                "target": "" if target is None else target,
                "sign": sign,
                "score": "" if finding.score is None else round(finding.score, 6),
                "weak": finding.weak or "",
                "class": best,
                "hit": "" if target is None else best == target,
                "images": len(subjects[triggered].images),
                "seconds": round(seconds, 1),
            }
        )
    log.info("%s: %s", folder.name, {row["sign"]: (row["score"], row["class"]) for row in rows})
    return rows


def _subject(folder: Path, triggered: float, params: SignsParams, compute: Compute) -> Subject:
    classifier, card = classifiers.load(folder / BACKDOOR)
    defended = load(folder / DEFENDED, folder / BACKDOOR) if (folder / DEFENDED / "card.json").is_file() else None
    images = read_split(folder / "data/raw/test", only_images=True).images
    images = _drawn(images, params.images, params.seed)
    if triggered:
        with_trigger = read_split(folder / "data/poisoned/test", only_images=True).images
        images = torch.cat([images, _drawn(with_trigger, round(triggered * len(images)), params.seed)])
    given = params.model_copy(update={"images": len(images)})
    return subject(classifier, card, images, [str(row) for row in range(len(images))], given, compute, defended)


def _drawn(images: Tensor, count: int, seed: int) -> Tensor:
    return images[torch.randperm(len(images), generator=Generator().manual_seed(seed))[:count].sort().values]
