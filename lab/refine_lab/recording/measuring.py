"""Measuring a system on the test images of a finished run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from refine.core.machine import machine
from refine.core.params import ParamsFile
from refine.defending.protocol.defense import Defense
from refine.evaluation.answers import answers, predictions
from refine.evaluation.metrics import Answers
from refine.evaluation.params import EvaluateParams
from refine.evaluation.test_sets import TestSets, open_tests
from refine.models.device import Compute, compute
from refine_lab.projects import PARAMS, RAW, TRIGGERED


@dataclass(frozen=True)
class Bench:
    """Test images, and what is needed to put them to a system.

    Attributes:
        tests: clean and triggered images.
        batch_size: images per forward pass.
        compute: device and threads.
    """

    tests: TestSets
    batch_size: int
    compute: Compute

    def some(self, count: int, seed: int) -> Bench:
        """With at most so many clean images, and what the attack makes of them."""
        return replace(self, tests=self.tests.some(count, seed))

    def answers(self, system: Defense) -> Answers:
        """The answers of a system to all images."""
        return answers(self._ready(system), self.tests, self.batch_size, self.compute)

    def to_triggered(self, system: Defense) -> Tensor:
        """The classes that it takes the triggered images for, int64 [M]."""
        return predictions(self._ready(system), self.tests.triggered, self.batch_size, self.compute)

    def _ready(self, system: Defense) -> Defense:
        return system.eval().to(self.compute.device)


def bench(project: Path) -> Bench:
    """The test images of a finished run, measured as its stage does.

    Raises:
        UserError: they are damaged or missing.
    """
    _, test = RAW
    params = ParamsFile(project / PARAMS).section("evaluate", EvaluateParams)
    own = machine().model_copy(update={"root": project.resolve()})
    return Bench(open_tests(project / test, project / TRIGGERED, own), params.batch_size, compute(own))
