"""The systems of a finished run after an attacker trained them further on a few images, hardly any of them poisoned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from refine.core.errors import UserError
from refine.core.params import ParamsFile
from refine.defending.loading import load
from refine.defending.protocol.defense import Defense, NoDefense
from refine.evaluation.metrics import DIGITS, measure
from refine.models import classifier as classifiers
from refine.poisoning.params import PoisonDatasetParams
from refine.retuning.attack import ALL, Draw, drawn, retuned, variants
from refine.retuning.params import RetuningParams
from refine.shards.reading.held_out import of_attacker
from refine.shards.reading.reader import read_split
from refine_lab.projects import CLASSIFIER, PARAMS, POISONED, RAW, Stages
from refine_lab.recording.clean import CleanSystems
from refine_lab.recording.measuring import Bench
from refine_lab.runs.record import AfterRetuning, Retuned, Retuning, Shares
from refine_lab.runs.recorded import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Attacker:
    """Who retunes systems.

    Attributes:
        params: how.
        draws: by which images.
        images: that the retuned systems are measured on.
    """

    params: RetuningParams
    draws: list[Draw]
    images: Bench

    def on(self, system: Defense, variant: str = ALL) -> AfterRetuning:
        """A system after each draw."""
        each = [self._shares(system, variant, draw) for draw in self.draws]
        names = Shares.model_fields
        means = {name: round(sum(getattr(one, name) for one in each) / len(each), DIGITS) for name in names}
        return AfterRetuning(mean=Shares(**means), each=each)

    def _shares(self, system: Defense, variant: str, draw: Draw) -> Shares:
        images = self.images.some(self.params.tested, draw.seed)
        made = retuned(system, variant, draw, self.params, images.compute)
        figures = measure(images.answers(made), images.tests.truth)
        return Shares(**{name: figures[name] for name in Shares.model_fields})


def already_measured(runs: Mapping[str, Run], outputs: dict[str, str], clean: CleanSystems | None) -> Retuned | None:
    """The bare classifier after retuning, where a run with another defense has measured it already.

    Args:
        runs: recorded ones by their names.
        outputs: of the run that is recorded now, see `runs.record.Record`.
        clean: the systems of the run without attack, if there is one.

    Returns:
        None where no run has the same attacked and the same clean classifier, retuned by the settings of now.
    """
    beside = _classifier(runs, clean.run) if clean else None
    for run in runs.values():
        retuning = run.record.retuning
        if (
            retuning
            and retuning.settings == RetuningParams().model_dump()
            and run.shares(outputs, (*RAW, CLASSIFIER))
            and _classifier(runs, retuning.clean_run) == beside
        ):
            return retuning.no_defense
    return None


def _classifier(runs: Mapping[str, Run], name: str | None) -> str | None:
    """DVC's hash of a run's classifier."""
    return runs[name].output(CLASSIFIER) if name and name in runs else None


def measured(
    project: Path, defense: str, clean: CleanSystems | None, images: Bench, bare: Retuned | None = None
) -> Retuning | None:
    """The retuning attack on a run's bare and defended classifier, and on those of the clean classifier beside them.

    Args:
        project: with the finished run of an attack; nothing in it is changed.
        defense: its name.
        clean: the systems of the run without attack, if there is one.
        images: what all of them are measured on.
        bare: of the bare classifier, where that is known; measured otherwise.

    Returns:
        None where it cannot be done; the log says why, and what came out where it can.
    """
    try:
        made = _measured(project, defense, clean, images, bare)
    except UserError as error:
        log.warning("retuning is left out: %s", error)
        return None
    log.info(_told(made))
    return made


def _measured(project: Path, defense: str, clean: CleanSystems | None, images: Bench, bare: Retuned | None) -> Retuning:
    params = RetuningParams()
    share = ParamsFile(project / PARAMS).section("poison_dataset", PoisonDatasetParams).held_out
    train, poisoned = read_split(project / RAW[0]), read_split(project / POISONED)
    train = train.subset(of_attacker(len(train.keys), share))
    draws = [drawn(train, poisoned, params, seed) for seed in params.seeds]
    attacker = _Attacker(params, draws, images)
    defended = load(project / Stages(defense).model, project / CLASSIFIER)
    if bare is None:
        attacked = attacker.on(NoDefense(classifiers.load(project / CLASSIFIER)[0]))
        bare = Retuned(attacked=attacked, clean=attacker.on(clean.bare) if clean else None)

    def beside(variant: str) -> AfterRetuning | None:
        return attacker.on(clean.defended, variant) if clean and clean.defended else bare.clean

    return Retuning(
        settings=params.model_dump(),
        images=len(draws[0].labels),
        poisoned=draws[0].poisoned,
        clean_run=clean.run if clean else None,
        clean_defended=bool(clean and clean.defended),
        no_defense=bare,
        defended={
            variant: Retuned(attacked=attacker.on(defended, variant), clean=beside(variant))
            for variant in variants(defended)
        },
    )


def _told(made: Retuning) -> str:
    """One line of attack success rates."""
    systems = {"no defense": made.no_defense, **{f"defended ({name})": own for name, own in made.defended.items()}}
    share = 100 * made.poisoned / made.images
    return f"retuned by {made.images} images, {made.poisoned} of them poisoned ({share:.1f} %), ASR: " + ", ".join(
        f"{name} {_percent(own.attacked)}" + (f" (clean {_percent(own.clean)})" if own.clean else "")
        for name, own in systems.items()
    )


def _percent(after: AfterRetuning) -> str:
    return f"{100 * after.mean.attack_success_rate:.2f} %"
