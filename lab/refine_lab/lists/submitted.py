"""The tasks of a list on a cluster: which wait for which, and where they go.

A run waits for what it has in common with others (`parts`), each of which one task makes. A run with an attack also
waits for the runs without one that come before it in the list, as its floors are measured on their classifiers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from refine.core.errors import UserError
from refine.core.outside import explained, first_line
from refine_lab.lists.clones import cache_of
from refine_lab.lists.nodes import Place, compute_run, make_part
from refine_lab.lists.parcels import Parcel, models_of, packed, with_models
from refine_lab.lists.parts import Part, parts
from refine_lab.lists.rows import Row
from refine_lab.runs.name import Name
from refine_lab.runs.parameters import attack_of
from refine_lab.runs.recorded import HOME, Run, read_all

log = logging.getLogger(__name__)

_TRIES = 3
"""How often a task is tried again whose worker or node is lost."""
_CLASSIFIER = ("download", "poison_dataset", "train_backdoor")
"""Sections of the parameters without which two runs have no classifier in common, and no clean one beside it."""

Free = tuple[Row, Name, str]
"""A row that this process is to compute, and name and parameters file of its run."""
Ended = tuple[Name, Parcel | Exception]


@dataclass
class _Waiting:
    """A run that is not yet computed.

    Attributes:
        run: what.
        parts: that are not known to be made.
        floors: names of the runs that it waits for besides.
        node: that has its parts; None where any node does.
    """

    run: Free
    parts: list[Part]
    floors: set[str]
    node: str | None = None


class Submitted:
    """Tasks of one list.

    Args:
        ray: connected.
        preset: of the list.
        project: root of the project.
        bundle: of git, with the commit.
        place: where nodes work.
        wants: what a task asks for, in Ray's words.
        apart: whether each node has a cache of its own.
    """

    def __init__(
        self, ray: Any, preset: str, project: Path, bundle: bytes, place: Place, wants: dict[str, Any], apart: bool
    ) -> None:
        self._ray = ray
        self._preset = preset
        self._project = project
        self._apart = apart
        self._ships = place.ships
        self._commit = place.commit
        self._bundle, self._place = ray.put(bundle), ray.put(place)
        self._make, self._compute = (ray.remote(max_retries=_TRIES, **wants)(task) for task in (make_part, compute_run))
        self._made: dict[str, str] = {}
        self._making: dict[Any, str] = {}
        self._for_part: dict[str, list[_Waiting]] = {}
        self._for_floor: list[_Waiting] = []
        self._running: dict[Any, Name] = {}

    def ended(self, free: list[Free]) -> Iterator[Ended]:
        """The runs as they end, each with its content, or with the reason why there is none.

        The caller records a run before it asks for the next one.
        """
        for place, (row, name, params) in enumerate(free):
            own = [] if row.machine else parts(params, row.defense, self._commit)
            if self._apart:  # every node needs the data, wherever another one has them
                own = [part for part in own if not part.is_data]
            self._go_on(_Waiting((row, name, params), own, _floors(row, params, free[:place])))
        while self._making or self._running:
            (done, *_), _ = self._ray.wait([*self._making, *self._running])
            result = self._result(done)
            if done in self._running:
                name = self._running.pop(done)
                yield name, result
                self._release(str(name))
                continue
            key = self._making.pop(done)
            runs = self._for_part.pop(key)
            if isinstance(result, Exception):
                for each in runs:
                    yield each.run[1], result
                    self._release(str(each.run[1]))
            else:
                self._made[key] = result
                for each in runs:
                    self._go_on(each)

    def _go_on(self, waiting: _Waiting) -> None:
        """Starts a run, or the next part that it needs, or has it wait for one that is being made."""
        while waiting.parts and waiting.parts[0].key in self._made:
            node = self._made[waiting.parts.pop(0).key]
            waiting.node = node if self._apart else None
        if waiting.parts:
            part = waiting.parts[0]
            if part.key not in self._for_part:
                task = self._on(self._make, waiting.node)
                self._making[task.remote(self._bundle, self._place, waiting.run[2], part)] = part.key
            self._for_part.setdefault(part.key, []).append(waiting)
        elif waiting.floors:
            self._for_floor.append(waiting)
        else:
            self._start(waiting)

    def _release(self, name: str) -> None:
        """Starts the runs that waited for one alone, which has ended."""
        waiting, self._for_floor = self._for_floor, []
        for each in self._everybody():
            each.floors.discard(name)
        for each in waiting:
            each.floors.discard(name)
            self._go_on(each)

    def _everybody(self) -> Iterator[_Waiting]:
        for runs in self._for_part.values():
            yield from runs

    def _start(self, waiting: _Waiting) -> None:
        row, name, params = waiting.run
        task = self._on(self._compute, waiting.node)
        beside = self._known(row, params)
        arguments = self._bundle, self._place, self._preset, row.model_dump(), params, beside
        self._running[task.remote(*arguments)] = name

    def _on(self, task: Any, node: str | None) -> Any:
        if node is None:
            return task
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)
        return task.options(scheduling_strategy=strategy)

    def _known(self, row: Row, params: str) -> Parcel:
        """What a run's recording looks at: runs without attack, for its floors, and those of the same classifier."""
        if row.attack == "none":
            return Parcel(packed([]))
        found = known(self._project, params)
        models = b""
        if self._ships:
            clean = [run for run in found if run.record.name.attack == "none"]
            wanted = set[str]().union(*(models_of(run, run.defense == row.defense) for run in clean))
            models = with_models(cache_of(self._project), wanted)
        return Parcel(packed(run.folder for run in found), models)

    def _result(self, done: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(done)
        except exceptions.RayTaskError as error:
            return _reason(error)
        except exceptions.RayError as error:
            return UserError(first_line(error))


def known(project: Path, text: str) -> list[Run]:
    """The recorded runs that may share a classifier, or a clean one beside it, with a run of these parameters."""
    params = yaml.safe_load(text)
    attacks = ("none", attack_of(params))
    runs = read_all(project / HOME) if (project / HOME).is_dir() else {}
    return [run for run in runs.values() if attack_of(run.params) in attacks and _same_classifier(run.params, params)]


def _floors(row: Row, params: str, before: list[Free]) -> set[str]:
    """The names of the runs of a list that a run's floors may be measured on."""
    if row.attack == "none":
        return set()
    own = yaml.safe_load(params)
    return {
        str(name)
        for each, name, other in before
        if each.attack == "none" and _same_classifier(yaml.safe_load(other), own)
    }


def _same_classifier(params: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether runs have the same data and classifier, whatever their attacks."""
    one, two = ({name: dict(of[name]) for name in _CLASSIFIER} for of in (params, other))
    for sections in (one, two):
        sections["poison_dataset"] = {"held_out": sections["poison_dataset"].get("held_out", 0.0)}
    return one == two


def _reason(error: Any) -> UserError:
    """Why a task failed; what nobody expected is shown as a whole."""
    cause = error.cause
    if isinstance(cause, UserError):
        return cause
    explanation = explained(cause)
    if explanation is None:
        log.error("%s", error)
    return UserError(explanation or f"{type(cause).__name__}: {first_line(cause)}")
