"""What runs of a list have in common, so that nothing of it is computed twice.

The data set, the attacked classifier, and a split of the training set: each is the work of a stage and of those before
it. Whoever needs one first makes it, and everybody else takes it from DVC's cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from refine.core.files import new_file
from refine_lab.lists import clones
from refine_lab.projects import CLASSIFIER, CLASSIFIER_STAGE, DATA_STAGE, RAW, SplitStages, object_in
from refine_lab.runs.parameters import attack_of, split_of

MADE = clones.HOME / "made"
"""A file for each part that was made, with DVC's hash of its output."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Something that several runs have in common.

    Attributes:
        key: differs from that of anything else.
        stage: the last one that it takes.
        output: what comes of it, a folder.
    """

    key: str
    stage: str
    output: Path

    @property
    def is_data(self) -> bool:
        """Whether it is the data set, and no more."""
        return self.stage == DATA_STAGE


def parts(text: str, defense: str, code: str) -> list[Part]:
    """What a run may have in common with others, each part after those that it needs.

    Args:
        text: of its parameters file.
        defense: its name.
        code: stands for what computes it, see `clones.code_of`.
    """
    params = yaml.safe_load(text)
    source, attack = params["download"]["source"], attack_of(params)
    of_data = [code, params["download"], (params.get("sources") or {}).get(source)]
    of_classifier = [
        *of_data,
        {**params["poison_dataset"], "contaminated": None},  # which concerns defenders alone
        (params.get("attacks") or {}).get(attack),
        params["train_backdoor"],
    ]
    found = [Part(_key(of_data), DATA_STAGE, RAW[0]), Part(_key(of_classifier), CLASSIFIER_STAGE, CLASSIFIER)]
    split = split_of(params, defense)
    if split:
        of_split = [*of_classifier, split, (params.get("split_settings") or {}).get(split)]
        found.append(Part(_key(of_split), SplitStages(split).evaluation, SplitStages(split).groups))
    return found


def make_once(project: Path, cache: Path, part: Part, make: Callable[[int], str]) -> None:
    """Makes a part unless the cache has it; waits where another list is making it.

    Args:
        project: root of the project.
        cache: of DVC.
        part: to make.
        make: makes it, and gives DVC's hash of its output; takes the descriptor of a lock that its commands keep open.
    """
    mark = project / MADE / part.key
    while not _there(mark, cache):
        with clones.lock(project, part.key) as held:
            if held is not None:
                if not _there(mark, cache):
                    made = make(held)
                    with new_file(mark) as file:
                        file.write_text(made, encoding="utf-8")
                return
        log.info("%s waits for another list, which is computing the same", part.stage)
        with clones.lock(project, part.key, wait=True):
            pass


def _there(mark: Path, cache: Path) -> bool:
    """Whether a part was made, and the cache still has it."""
    try:
        made = mark.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return bool(made) and object_in(cache, made).is_file()


def _key(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]
