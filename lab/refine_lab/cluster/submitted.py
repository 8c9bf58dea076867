"""The tasks of a list on a cluster: which wait for which, and where they go.

A run waits for what it has in common with others (`parts`), each of which one task makes. A run with an attack also
waits for the runs without one that come before it in the list, as its floors are measured on their classifiers.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from refine.core.errors import UserError
from refine.core.outside import explained, first_line
from refine_lab.cluster.nodes import Place, compute_run, make_parts
from refine_lab.cluster.parcels import Parcel, models_of, packed, with_models
from refine_lab.lists.clones import cache_of, code_of
from refine_lab.lists.parts import Part, parts
from refine_lab.lists.rows import Row
from refine_lab.runs.name import Name
from refine_lab.runs.parameters import attack_of, same_classifier, same_defense
from refine_lab.runs.recorded import HOME, Run, read_all

log = logging.getLogger(__name__)

_TRIES = 3
"""How often a task is tried again whose worker or node is lost."""
Free = tuple[Row, Name, str]
"""A row that this process is to compute, and name and parameters file of its run."""
Ended = tuple[Name, Parcel | Exception]


@dataclass
class _Waiting:
    """A run that is not yet computed.

    Attributes:
        run: what.
        parts: that it needs.
        wanted: those of them that a task of their own makes, and that are not known to be made.
        floors: names of the runs that it waits for besides.
        not_before: names of the runs that come after it in the list, and its own.
        node: that has its parts; None where any node does.
    """

    run: Free
    parts: list[Part]
    wanted: list[Part]
    floors: set[str]
    not_before: set[str]
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
        self._code = code_of(project)
        self._bundle, self._place = ray.put(bundle), ray.put(place)
        remote = ray.remote(max_retries=_TRIES, **wants)
        self._make, self._compute = remote(make_parts), remote(compute_run)
        self._made: dict[str, str] = {}
        self._making: dict[Any, str] = {}
        self._for_part: dict[str, list[_Waiting]] = {}
        self._for_floor: list[_Waiting] = []
        self._running: dict[Any, Name] = {}
        self._failed: list[Ended] = []
        self._models: dict[frozenset[str], Any] = {}

    def ended(self, free: list[Free]) -> Iterator[Ended]:
        """The runs as they end, each with its content, or with the reason why there is none.

        The caller records a run before it asks for the next one.
        """
        names = [str(name) for _, name, _ in free]
        for place, (row, name, params) in enumerate(free):
            own = [] if row.machine else parts(params, row.defense, self._code)
            # every node needs the data, wherever another one has them
            wanted = [part for part in own if not (part.is_data and self._apart)]
            floors = _floors(row, params, free[:place])
            self._go_on(_Waiting((row, name, params), own, wanted, floors, set(names[place:])))
        while self._making or self._running or self._failed:
            if self._failed:
                ended = [self._failed.pop()]
            else:
                (done, *_), _ = self._ray.wait([*self._making, *self._running])
                ended = self._ended(done, self._result(done))
            for name, result in ended:
                yield name, result
                self._release(str(name))

    def _ended(self, done: Any, result: Any) -> list[Ended]:
        """What a task that has ended says of runs; those that waited for it go on."""
        if done in self._running:
            return [(self._running.pop(done), result)]
        key = self._making.pop(done)
        waiting = self._for_part.pop(key)
        if isinstance(result, Exception):
            return [(each.run[1], result) for each in waiting]
        self._made[key] = result
        for each in waiting:
            self._go_on(each)
        return []

    def _go_on(self, waiting: _Waiting) -> None:
        """Starts a run, or the next part that it needs, or has it wait for one that is being made."""
        while waiting.wanted and waiting.wanted[0].key in self._made:
            node = self._made[waiting.wanted.pop(0).key]
            waiting.node = node if self._apart else None
        if waiting.wanted:
            part = waiting.wanted[0]
            if part.key not in self._for_part:
                task = self._on(self._make, waiting.node)
                until = waiting.parts[: waiting.parts.index(part) + 1]
                self._making[task.remote(self._bundle, self._place, waiting.run[2], until)] = part.key
            self._for_part.setdefault(part.key, []).append(waiting)
        elif waiting.floors:
            self._for_floor.append(waiting)
        else:
            self._start(waiting)

    def _release(self, name: str) -> None:
        """Starts the runs that waited for one alone, which has ended."""
        waiting, self._for_floor = self._for_floor, []
        for each in (*waiting, *(each for runs in self._for_part.values() for each in runs)):
            each.floors.discard(name)
        for each in waiting:
            self._go_on(each)

    def _start(self, waiting: _Waiting) -> None:
        row, name, params = waiting.run
        try:
            recorded, models = self._known(row, params, waiting.not_before)
        except (UserError, OSError) as error:  # what is recorded here is damaged, or was removed meanwhile
            self._failed.append((name, error))
            return
        task = self._on(self._compute, waiting.node)
        run = self._preset, row.model_dump(), params, waiting.parts
        self._running[task.remote(self._bundle, self._place, *run, recorded, models)] = name

    def _on(self, task: Any, node: str | None) -> Any:
        if node is None:
            return task
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)
        return task.options(scheduling_strategy=strategy)

    def _known(self, row: Row, params: str, but: set[str]) -> tuple[bytes, Any]:
        """What a run's recording looks at: runs without attack, for its floors, and those of the same classifier.

        Args:
            row: the run.
            params: its parameters file.
            but: names of runs that a list here would not have recorded yet.

        Returns:
            These runs, packed, and their models where the nodes have another cache, as an object of Ray.
        """
        found = [] if row.attack == "none" else known(self._project, params, but)
        wanted = frozenset[str]()
        if self._ships:
            clean = [run for run in found if run.record.name.attack == "none"]
            wanted = frozenset().union(*(models_of(run, run.defense == row.defense) for run in clean))
        if wanted not in self._models:
            self._models[wanted] = self._ray.put(with_models(cache_of(self._project), wanted))
        return packed(run.folder for run in found), self._models[wanted]

    def _result(self, done: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(done)
        except exceptions.RayTaskError as error:
            return _reason(error)
        except exceptions.RayError as error:
            return UserError(first_line(error))


def known(project: Path, text: str, but: Collection[str] = ()) -> list[Run]:
    """The recorded runs that may share a classifier, or a clean one beside it, with a run of these parameters."""
    params = yaml.safe_load(text)
    attacks = ("none", attack_of(params))
    runs = read_all(project / HOME) if (project / HOME).is_dir() else {}
    return [
        run
        for name, run in runs.items()
        if name not in but and attack_of(run.params) in attacks and _alike(run.params, params)
    ]


def _floors(row: Row, params: str, before: list[Free]) -> set[str]:
    """The names of the runs of a list that a run's floors are measured on, in the order of preference of `clean`.

    That is the one with the same defense; all where there is none.
    """
    if row.attack == "none":
        return set()
    own = yaml.safe_load(params)
    clean = {
        str(name): same_defense(yaml.safe_load(other), own, row.defense) and each.defense == row.defense
        for each, name, other in before
        if each.attack == "none" and _alike(yaml.safe_load(other), own)
    }
    same = {name for name, alike in clean.items() if alike}
    return same or set(clean)


def _alike(params: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the classifiers of two runs are those of the same recipe and data, whatever their attacks."""
    return same_classifier(params, other) and bool(params["download"]["source"] == other["download"]["source"])


def _reason(error: Any) -> UserError:
    """Why a task failed; what nobody expected is shown as a whole."""
    cause = error.cause
    if isinstance(cause, UserError):
        return cause
    explanation = explained(cause)
    if explanation is None:
        log.error("%s", error)
    return UserError(explanation or f"{type(cause).__name__}: {first_line(cause)}")
