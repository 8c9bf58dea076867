"""Settings of a network, found by the name of its architecture in parameters and cards. Nothing here imports torch.

An architecture is a folder in `refine.architectures`: `params.py` with its settings `Params`, and `network.py` with
`build(params, num_classes, side)`, which gives a freshly initialized network, from torch's global random state, that
maps normalized images float [N, 3, side, side] to logits float [N, K].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ValidationError

from refine.core.errors import UserError
from refine.core.params import sentence, unknown
from refine.core.registry import ARCHITECTURES, component, names
from refine.models.chosen import Chosen


class Architecture(Chosen):
    """Attributes:
    name: of the architecture, a folder in `src/refine/architectures`, whose own settings stand beside it.
    """

    room: ClassVar[str] = ARCHITECTURES
    example: ClassVar[str] = "{name: resnet18}"


@dataclass(frozen=True)
class Published:
    """What a library says of the images that a network takes, see `importing.published`.

    Attributes:
        side: of its images, in pixels.
        resize: of the shorter side before the middle is taken.
        interpolation: of that.
        keep_aspect: see `shards.format.preparation.Preparation`.
        mean: per channel, for pixels in [0, 1].
        std: per channel.
    """

    side: int
    resize: int
    interpolation: str
    keep_aspect: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def named(name: str, **settings: Any) -> Architecture:
    """An architecture by its name and settings.

    Raises:
        pydantic.ValidationError: there is no such architecture, or it has no such setting.
    """
    return Architecture.model_validate({"name": name, **settings})


def from_text(text: str, **settings: Any) -> Architecture:
    """An architecture as it is written on a command line, such as `resnet18`, `resnet18:32` or `torchvision:vgg16_bn`.

    Args:
        text: its name, and after a colon the value of its first own setting.
        settings: further ones.

    Raises:
        UserError: there is no such architecture, or the settings do not fit it.
    """
    name, _, value = text.partition(":")
    if name not in names(ARCHITECTURES):
        raise UserError(f"--architecture {text}: {unknown(name, names(ARCHITECTURES))}")
    own = [field for field in component(ARCHITECTURES, name, "").Params.model_fields if field != "name"]
    if value:
        settings[own[0]] = int(value) if value.isdecimal() else value
    try:
        return named(name, **settings)
    except ValidationError as error:
        raise UserError(f"--architecture {text}: {sentence(name, error)}") from None
