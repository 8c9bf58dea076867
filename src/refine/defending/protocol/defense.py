"""What a defense is: a folder of `refine.defenses` whose `defense.py` holds, by these names:

- `Params`, the settings, with published defaults;
- `Defended`, a `Defense`: the defended classifier;
- `load(folder, classifier_folder) -> Defense`, from the folder that its training wrote;
- `snapshots(folder) -> list[int]`, where states of its training are kept; `load` then takes `epoch` too;
- `parts(folder, classifier_folder) -> dict[str, Defense]`, where something inside it answers images by itself, which
  is then measured beside it.

A defense that is trained has `training.py` beside it with `train(task)`, see `defending.train.Task`, which writes that
folder. Without it the card is written alone.

Evaluation, pictures and reports use nothing of a defense beyond what is defined here.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from refine.models.classifier import Classifier
from refine.models.device import to_float32

Regime = Literal["none", "unlabeled", "labeled", "poisoned_train"]
"""What a defender has beside the classifier: nothing; clean images without or with their labels; or the training set
that the classifier was trained on, poisoned as it is and with the labels that it came with."""


class Defense(nn.Module):
    """A defended classifier: pixels float [N, 3, H, W] in [0, 1], RGB, to logits float [N, K].

    The answer to an image depends on that image alone, not on the batch that it comes in: what is random is drawn from
    a hash of the image's pixels, see `defending.randomness`.

    Attributes:
        title: its name in tables and pictures.
        regime: the data that it needs.
        changes_classifier: whether weights of the classifier differ from those that it was given.
        classifier: the one inside, which classifies what the defense passes to it.
    """

    title: ClassVar[str]
    regime: ClassVar[Regime]
    changes_classifier: ClassVar[bool] = False
    classifier: Classifier

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Of each class, float32 [N, K]; pixels as in a call."""
        return to_float32(self(pixels)).softmax(dim=1)


class NoDefense(Defense):
    """The classifier as it is, measured beside every defense."""

    title = "no defense"
    regime = "none"

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pixels)
        return logits


@runtime_checkable
class Purifies(Protocol):
    """A defense that passes transformed images to the classifier, which people can look at.

    Methods alone: Python 3.12 and later do not see a submodule, such as the classifier, where they look whether a
    defense fits.
    """

    def transformed(self, pixels: Tensor) -> Tensor:
        """The images instead, float32, same shape, in the values that the defense computes with."""

    def network_inputs(self, transformed: Tensor) -> Tensor:
        """Transformed images as the classifier's network takes them, normalized, same shape."""

    def pictures(self, pixels: Tensor) -> Tensor:
        """The transformed images as pixels in [0, 1] that a person can look at, same shape."""


@runtime_checkable
class MapsLabels(Protocol):
    """A defense that permutes the classes of the classifier."""

    def mapped(self, probabilities: Tensor) -> Tensor:
        """Probabilities [N, K] of the classifier as those of the defended classifier."""

    def unmapped(self, labels: Tensor) -> Tensor:
        """Labels of the defended classifier, int64 [N], as the classifier inside answers them."""


@runtime_checkable
class Retunes(Protocol):
    """A defense that an attacker who trains it further can change in several ways; any other is changed as a whole."""

    def retuned_modules(self) -> dict[str, list[nn.Module]]:
        """What is trained, in train mode, by a name for each way; `all` trains everything."""
