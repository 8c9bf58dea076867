"""A result of the stress test for the terminal."""

from __future__ import annotations

import pandas as pd

from refine.proof.stress.result import Plant, Rate, StressResult


def render(result: StressResult) -> str:
    """A row for each plant, and what the rows say together."""
    rows = {plant.name: _row(plant) for plant in result.plants}
    shown = pd.DataFrame.from_dict(rows, orient="index").to_string(na_rep="", justify="left")
    images = result.images
    lines = [
        shown,
        f"in percent, 95 % intervals in brackets; {images.planting:,} images to plant, {images.defending:,} to defend, "
        f"{images.measuring:,} to measure",
        _verdict(result),
        result.note,
    ]
    if result.defense_multiple is not None:
        lines.append(f"{result.seconds:,.0f} s, {result.defense_multiple:.1f} times as long as one defense of a copy")
    return "\n".join(lines)


def told(plant: Plant) -> str:
    """One line about a plant."""
    begin = f"{plant.name} ({plant.attack}, to {plant.target}): "
    before = plant.before.attack_success_rate
    if not plant.after:
        agreement = _percent(plant.before.agreement)
        floor = _percent(plant.model.attack_success_rate)
        return (
            f"{begin}did not take: ASR {_percent(before)} % (of the model itself {floor} %), "
            f"agreement with the model {agreement} %; it does not count"
        )
    return f"{begin}ASR {_percent(before)} % before the defense, {_bracketed(plant.after.attack_success_rate)} after it"


def _row(plant: Plant) -> dict[str, str]:
    before, after = plant.before, plant.after
    row = {
        "attack": plant.attack,
        "target": plant.target,
        "ASR before": _percent(before.attack_success_rate),
        "ASR after": _bracketed(after.attack_success_rate) if after else "did not take",
        "without plant": _percent(plant.model.attack_success_rate),
        "agreement before": _percent(before.agreement),
        "agreement after": _percent(after.agreement) if after else "",
        "robust agreement after": _percent(after.robust_agreement) if after else "",
    }
    for name, system in (("BA of the model", plant.model), ("BA after", after)):
        if system and system.benign_accuracy:
            row[name] = _percent(system.benign_accuracy)
    return row


def _verdict(result: StressResult) -> str:
    took = result.took
    if not took:
        return "no plant took, so that this test says nothing about the defense; the figures of each say why"
    worst = next(plant for plant in took if plant.name == result.worst)
    assert worst.after  # noqa: S101 (it took)
    left = worst.after.attack_success_rate
    return (
        f"{len(took)} of {len(result.plants)} plants took; the highest success rate after the defense is that of "
        f"{worst.name}, {_bracketed(left)} of {left.images:,} images"
    )


def _bracketed(rate: Rate) -> str:
    low, high = rate.interval_95
    return f"{_percent(rate)} [{100 * low:.1f}, {100 * high:.1f}]"


def _percent(rate: Rate) -> str:
    return f"{100 * rate.share:.1f}"
