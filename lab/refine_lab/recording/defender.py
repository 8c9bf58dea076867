"""What the defender of a finished run had."""

from __future__ import annotations

from pathlib import Path

from refine.core.params import ParamsFile
from refine.core.registry import DEFENSES, component
from refine.defending import material
from refine.defending.params import STAGE_OF_ITS_OWN
from refine.defenses.refine.training.params import TrainRefineParams
from refine.shards.reading.folder import complete
from refine_lab.projects import DEFENDER, PARAMS, Stages
from refine_lab.runs.record import Defender

_LABELED = ("labeled", "poisoned_train")


def defender(project: Path, defense: str) -> Defender:
    """Regime and images of a defense of the run.

    Args:
        project: with the finished run.
        defense: its name.

    Raises:
        UserError: data or parameters are damaged or missing.
    """
    kind = component(DEFENSES, defense, "defenses").Defended
    if defense == STAGE_OF_ITS_OWN:
        fraction = ParamsFile(project / PARAMS).section("train_refine", TrainRefineParams).unlabeled_fraction
        regime, images = kind.regime, round(fraction * complete(project / DEFENDER).samples)
    else:
        given = material.read(project / Stages(defense).given)
        regime, images = given.regime, given.images
    return Defender(regime=regime, images=images, labels=regime in _LABELED, changes_classifier=kind.changes_classifier)
