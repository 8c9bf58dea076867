"""Whether an attack took, and whether the defense took it away and left the images readable."""

from __future__ import annotations

from refine.reports.run import Run

TAKES = 0.9
"""Attack success rate without defense from which there is something to defend against."""
NEAR_FLOOR = 0.01
"""How far above its floor the attack success rate may be behind the defense."""
READABLE = 0.05
"""How far the robust accuracy behind the defense may be under that of triggered images without any backdoor."""


def aim(done: Run) -> str:
    """`met`, or what was missed.

    What a backdoor does is held against the same triggered images without any: the clean run's defense where it was
    recorded, else its classifier. Where no clean run is recorded, floor and benign accuracy of the images without
    their trigger stand in for it.
    """
    success = done.figure("no_defense", "attack_success_rate")
    if success is None:
        return "no attack"
    missed = [f"ASR before is under {percent(TAKES)}"] if success < TAKES else []
    missed += [told for told in (_above_floor(done), _misread(done)) if told]
    return f"**missed**: {', '.join(missed)}" if missed else "met"


def _above_floor(done: Run) -> str:
    clean = done.facts.clean
    floor = (clean.refine or clean.no_defense).asr_floor_triggered if clean else done.figures["refine"]["asr_floor"]
    above = done.figures["refine"]["attack_success_rate"] - floor
    return f"ASR after is {100 * above:.1f} points above its floor" if above > NEAR_FLOOR else ""


def _misread(done: Run) -> str:
    clean, after = done.facts.clean, done.figures["refine"]
    readable = (clean.refine or clean.no_defense).robust_accuracy if clean else after["benign_accuracy"]
    if after["robust_accuracy"] >= readable - READABLE:
        return ""
    told = f"{percent(1 - after['robust_accuracy'])} of the triggered images are not read as what they are"
    if clean:
        told += f" ({percent(1 - readable)} without backdoor)"
    most = done.figures.get("misread", {}).get("refine")
    return f"{told}, most often as `{most[0]['as']}` ({percent(most[0]['share'])})" if most else told


def percent(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f} %"
