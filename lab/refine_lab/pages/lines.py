"""Lines of tables: the cells of one run, for each kind of table."""

from __future__ import annotations

from typing import Any

from refine_lab.lists.rows import Row
from refine_lab.pages.aim import aim
from refine_lab.pages.cells import NONE, figures, percent, settings
from refine_lab.projects import Stages
from refine_lab.runs.parameters import IN_THE_NAME
from refine_lab.runs.recorded import Run
from refine_lab.systems import regime

NOT_YET = "not yet run"
_CACHED = "from the cache"


def attack_line(row: Row, run: Run | None) -> dict[str, str]:
    """How much is poisoned, the figures, and whether attack and defense reach their aims."""
    line = {"attack": f"`{row.attack}`"}
    if run is None:
        return {**line, "poisoned": NOT_YET}
    changes = {_short(name): value for name, value in run.record.changes.items() if not _in_the_name(name)}
    own = {name: value for name, value in changes.items() if not name.startswith("source.")}
    other_source = ["`source`"] if len(own) < len(changes) else []
    reason = f": {row.why}" if row.why else ""
    return {
        **line,
        "poisoned": _poisoned(run),
        **figures(run),
        "aim": aim(run),
        "departs from the defaults in": ", ".join(settings(own) + other_source) + reason,
    }


def spread_line(row: Row, run: Run | None) -> dict[str, str]:
    """The figures, with the seed and the number of threads that computed them."""
    line = {"variant": row.variant, "seed": str(row.seed)}
    if run is None:
        return {**line, "threads": NOT_YET}
    computed = run.record.runtime.get(Stages(run.defense).training, {})
    asked = run.record.machine.get("ONEDNN_MAX_CPU_ISA")
    return {
        **line,
        "threads": str(computed.get("threads", _CACHED)),
        "instructions": str(asked or computed.get("instructions", NONE)),
        **figures(run),
    }


def result_line(row: Row, run: Run | None, common: dict[str, Any]) -> dict[str, str]:
    """The figures, what departs from the preset besides what all rows have in common, and how long it took on what."""
    own = {name: value for name, value in row.changes.items() if name not in common}
    line = {
        "attack": f"`{row.attack}`",
        "variant": row.variant,
        "departs from the preset in": ", ".join(settings(own)),
        "seed": str(row.seed),
    }
    if run is None:
        return {**line, "BA": NOT_YET}
    drop = run.before["benign_accuracy"] - run.after["benign_accuracy"]
    line |= {**figures(run), "BA drop": f"{100 * drop:.1f} points"}
    training = Stages(run.defense).training
    for column, stage in (("attack", "train-backdoor"), ("defense", training)):
        record = run.record.runtime.get(stage)
        line[f"minutes, {column}"] = f"{record['seconds'] / 60:.0f}" if record else _CACHED
    return {**line, **_machine(run.record.runtime.get(training))}


def defense_line(row: Row, run: Run | None) -> dict[str, str]:
    """The figures of a defense against an attack."""
    line = {"attack": f"`{row.attack}`", "defense": f"`{row.defense}`", "data regime": f"`{regime(row.defense)}`"}
    return {**line, "BA": NOT_YET} if run is None else {**line, **figures(run), "aim": aim(run)}


def _machine(record: dict[str, Any] | None) -> dict[str, str]:
    if record is None or "device_name" not in record:
        return {}
    return {"on": f"{record['device_name']}, {record['threads']} threads, torch {record['versions']['torch']}"}


def _poisoned(run: Run) -> str:
    record = run.record
    if record.rate_of_classes is None:
        return "none"
    cover = f", {record.cover} cover" if record.cover else ""
    shares = f"{percent(record.rate_of_dataset)} of all, {percent(record.rate_of_classes)} of their classes"
    return f"{record.poisoned}{cover}: {shares}"


def _in_the_name(parameter: str) -> bool:
    """Whether the name of a run shows a parameter: attack, defense, or the seed of a section."""
    section, _, last = parameter.rpartition(".")
    return parameter in IN_THE_NAME or (last == "seed" and "." not in section)


def _short(name: str) -> str:
    """An attack's parameter without the attack's name."""
    return name.split(".", 2)[2] if name.startswith("attacks.") else name
