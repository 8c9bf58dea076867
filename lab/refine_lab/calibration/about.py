"""What is known of a model of the calibration: `model.json` in its folder, written when it is finished."""

from __future__ import annotations

from refine.core.strict import Strict

DONE = "model.json"


class About(Strict):
    """Content of the file.

    Attributes:
        half: `set`, whose models set the thresholds, or `measured`.
        data: name of the data source.
        attack: its name; `none` without.
        target: class of the attack; None without.
        attempt: how many seeds before this one did not lead to a backdoor.
        benign_accuracy: on the test images.
        attack_success_rate: on triggered test images; None without an attack.
    """

    half: str
    data: str
    attack: str
    target: int | None
    attempt: int
    benign_accuracy: float
    attack_success_rate: float | None = None
