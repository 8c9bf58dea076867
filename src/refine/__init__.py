"""Backdoor attacks on image classifiers, and defenses.

To use a model: `refine.load("defended").classify("photo.jpg")`, see `refine.deployment.model`. What is named here is
imported when it is first used, so that the pipeline's stages and `refine --help` do without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refine.core.errors import UserError
    from refine.deployment.model import Model, Prediction, load

__all__ = ["Model", "Prediction", "UserError", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("refine.core.errors" if name == "UserError" else "refine.deployment.model"), name)
