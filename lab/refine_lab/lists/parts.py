"""What runs of a list have in common, so that nothing of it is computed twice.

The data set, the attacked classifier, and a split of the training set: each is the work of a stage and of those before
it. Whoever needs one makes it once, and everybody else takes it from DVC's cache.
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

from refine_lab.lists import clones
from refine_lab.projects import CLASSIFIER_STAGE, DATA_STAGE, SplitStages
from refine_lab.runs.parameters import attack_of, split_of

MADE = clones.HOME / "made"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Something that several runs have in common.

    Attributes:
        key: differs from that of anything else.
        stage: the last one that it takes.
        is_data: whether it is the data set, and no more.
    """

    key: str
    stage: str
    is_data: bool = False


def parts(text: str, defense: str, commit: str) -> list[Part]:
    """What a run may have in common with others, each part after those that it needs.

    Args:
        text: of its parameters file.
        defense: its name.
        commit: whose code it is.
    """
    params = yaml.safe_load(text)
    source, attack = params["download"]["source"], attack_of(params)
    of_data = [commit, params["download"], (params.get("sources") or {}).get(source)]
    of_classifier = [
        *of_data,
        params["poison_dataset"],
        (params.get("attacks") or {}).get(attack),
        params["train_backdoor"],
    ]
    found = [Part(_key(of_data), DATA_STAGE, is_data=True), Part(_key(of_classifier), CLASSIFIER_STAGE)]
    split = split_of(params, defense)
    if split:
        of_split = [*of_classifier, split, (params.get("split_settings") or {}).get(split)]
        found.append(Part(_key(of_split), SplitStages(split).evaluation))
    return found


def make_once(project: Path, part: Part, make: Callable[[int], None]) -> None:
    """Makes a part unless that was done; waits where another list is making it.

    Args:
        project: root of the project.
        part: to make.
        make: makes it; takes the descriptor of a lock, which its commands keep open.
    """
    mark = project / MADE / part.key
    while not mark.exists():
        with clones.lock(project, part.key) as held:
            if held is not None:
                make(held)
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
                return
        log.info("%s waits for another list, which is computing the same", part.stage)
        with clones.lock(project, part.key, wait=True):
            pass


def _key(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]
