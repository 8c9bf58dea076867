"""BCU: part of the weights start anew, and learn the classifier's answers to clean images.

A student starts from the given classifier, in which each weight of a convolution or linear layer is replaced, with a
probability p that grows with depth, by that of a freshly initialized network: deep layers hold the backdoor, and are
learned again most easily. Batch normalization stays as it was given. The student then learns the answers of the given
classifier, the teacher, to unlabeled clean images; in epoch e of E, with logits s of the student and t of the teacher,

    minimize KL(softmax(t / T) || softmax(s / T)),  T = 1 + 3 e / E,

in this direction as in the official code; `divergence: student_teacher` takes the other one. That code logs the best
epoch by test accuracy beside the last one, which counts there and here.

Networks other than ResNet-18 have other groups of layers: blocks by the first two parts of their names, in their order.
They take p at their relative depth, interpolated between the published values. Layers that an architecture computes
instead of learning (the first one of airbench) are not replaced.

Knowledge distillation with re-initialized weights (Pang et al., CVPR 2023, "Backdoor Cleansing with Unlabeled Data"). A
backdoor that is planted to survive distillation survives it (Chen et al., NeurIPS 2025, "SCAR").
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from refine.core.bounds import BatchSize, Epochs
from refine.core.params import Number, Section, Share
from refine.defending import repaired
from refine.defending.repaired import Repaired
from refine.training.recipe import Augment, DefenderRecipe, Optimizer, Schedule, paper_by_name

NAME = "bcu"


class StudentRecipe(DefenderRecipe):
    """The defaults are the published ones."""

    place: ClassVar[str] = f"defense_settings.{NAME}.recipe"

    epochs: Epochs = 100
    batch_size: BatchSize = 256
    drop_last: bool = False
    optimizer: Optimizer = Optimizer(lr=0.01)
    schedule: Schedule = Schedule(name="cosine")
    augment: Augment = Augment(shift=4, flip=0.5)


class Params(Section):
    """Attributes:
    replaced: probability p for the groups of layers from the input on, without the head.
    replaced_in_head: p of the head.
    warming: by how much the temperature T, 1 at first, has risen in the last epoch.
    divergence: what is minimized, `student_teacher` KL(student || teacher) or `teacher_student` KL(teacher || student).
    recipe: how the student is trained.
    """

    replaced: Annotated[list[Share], Field(min_length=1, max_length=100)] = Field(
        default=[0.01, 0.01, 0.03, 0.09, 0.27]
    )
    replaced_in_head: Share = 0.1
    warming: Annotated[Number, Field(ge=0, le=1000)] = 3.0
    divergence: Literal["student_teacher", "teacher_student"] = "teacher_student"
    recipe: Annotated[StudentRecipe, BeforeValidator(paper_by_name)] = StudentRecipe()


class Defended(Repaired):
    """See `defending.repaired.Repaired`."""

    title = "BCU"
    regime = "unlabeled"


def load(folder: Path, classifier_folder: Path) -> Defended:
    """See `defending.loading.load`."""
    return repaired.load(Defended, NAME, Params, folder, classifier_folder)
