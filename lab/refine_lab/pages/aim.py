"""Whether an attack succeeded, and whether the defense took it away and left the images readable."""

from __future__ import annotations

from refine_lab.pages.cells import percent
from refine_lab.runs.record import OnTriggered
from refine_lab.runs.recorded import Run

SUCCEEDS = 0.9
"""Attack success rate without defense from which there is something to defend against."""
NEAR_FLOOR = 0.01
"""How far above its floor the attack success rate may be behind the defense."""
READABLE = 0.05
"""How far the robust accuracy behind the defense may be under that of triggered images without any backdoor."""


def aim(run: Run) -> str:
    """`met`, or what was missed.

    A defended classifier is compared with the same triggered images without any backdoor: with the clean run's defense
    where it was recorded, else with its classifier. Where no clean run is recorded, floor and benign accuracy of the
    images without their trigger stand in for it.
    """
    success = run.before.get("attack_success_rate")
    if success is None:
        return "no attack"
    missed = [f"ASR before is under {percent(SUCCEEDS)}"] if success < SUCCEEDS else []
    missed += [miss for miss in (_above_floor(run), _misread(run)) if miss]
    return f"**missed**: {', '.join(missed)}" if missed else "met"


def _clean(run: Run) -> OnTriggered | None:
    clean = run.record.clean
    return (clean.defended or clean.no_defense) if clean else None


def _above_floor(run: Run) -> str:
    clean = _clean(run)
    floor = clean.asr_floor_triggered if clean else run.after["asr_floor_clean"]
    above = run.after["attack_success_rate"] - floor
    return f"ASR after is {100 * above:.1f} points above its floor" if above > NEAR_FLOOR else ""


def _misread(run: Run) -> str:
    clean, robust = _clean(run), run.after["robust_accuracy"]
    readable = clean.robust_accuracy if clean else run.after["benign_accuracy"]
    if robust >= readable - READABLE:
        return ""
    sentence = f"{percent(1 - robust)} of the triggered images are not read as what they are"
    if clean:
        sentence += f" ({percent(1 - readable)} without backdoor)"
    most = run.diagnostics.get("misread", {}).get(run.defense)
    return f"{sentence}, most often as `{most[0]['as']}` ({percent(most[0]['share'])})" if most else sentence
