"""What a report finds: the findings that its verdict rests on, each with its uncertainty."""

from __future__ import annotations

from refine.deployment.folder import LITTLE_AGREEMENT, Agreement
from refine.deployment.labeled import Accuracy
from refine.proof.judging.verdict import SignsResult
from refine.proof.page.content import Finding, Tone
from refine.proof.report.sentences import listed, percent, rate
from refine.proof.stress.result import Plant, StressResult

ENOUGH_AGREEMENT = 0.95
ENOUGH_LABELED = 200
LEAST_RIGHT = 0.5
"""Of a model that is right less often, labeled photos say more about the labels."""
SMALL_DROP = 0.02
MOST_DROP = 0.05
MOST_ABOVE_FLOOR = 0.05
"""Above the share that the trigger reaches without any backdoor; half of what still works, and far from none."""

_COSTS: dict[Tone, str] = {
    "good": "The defense costs little.",
    "open": "The defense costs something: look at the photos whose class changes.",
    "bad": "The defense costs much: more photos, or a longer training, may help.",
}


def of_agreement(agreement: Agreement) -> Finding:
    """Whether the defended model does the work of the delivered one."""
    share = agreement.share
    tone: Tone = "good" if share >= ENOUGH_AGREEMENT else "open" if share >= LITTLE_AGREEMENT else "bad"
    return Finding(
        tone=tone,
        text="On photos that the defense was not trained on, the defended model gives the same class as the "
        f"delivered one to {rate(agreement.same, agreement.images)}. {_COSTS[tone]}",
    )


def of_accuracy(accuracy: Accuracy) -> Finding:
    """Whether the defended model is right as often as the delivered one."""
    told = (
        "On labeled photos that the defense was not trained on, the delivered model is right on "
        f"{rate(accuracy.delivered, accuracy.images)}, and the defended one on "
        f"{rate(accuracy.defended, accuracy.images)}."
    )
    if accuracy.images < ENOUGH_LABELED:
        return Finding(tone="open", text=f"{told} So few photos do not decide anything.")
    if accuracy.delivered < LEAST_RIGHT * accuracy.images:
        return Finding(tone="open", text=f"{told} Are these photos of the model's classes, in their order?")
    tone: Tone = "good" if accuracy.drop <= SMALL_DROP else "open" if accuracy.drop <= MOST_DROP else "bad"
    return Finding(tone=tone, text=f"{told} {_COSTS[tone]}")


def of_work(accuracy: Accuracy | None, agreement: Agreement) -> Finding:
    """The finding that decides whether the defended model does the work of the delivered one."""
    decides = accuracy and accuracy.images >= ENOUGH_LABELED and accuracy.delivered >= LEAST_RIGHT * accuracy.images
    return of_accuracy(accuracy) if accuracy and decides else of_agreement(agreement)


def of_stress(stress: StressResult | None) -> Finding:
    """Whether known backdoors are gone after the same defense."""
    if stress is None:
        return Finding(
            tone="open", text="No stress test was made: nothing shows here that this defense removes a backdoor."
        )
    took = [plant for plant in stress.plants if plant.took and plant.after]
    if not took:
        return Finding(
            tone="open",
            text=f"None of the {len(stress.plants)} known backdoors could be planted into copies of the model, or the "
            "model itself answers their triggers, so that nothing shows here that this defense removes one.",
        )
    worst = max(took, key=_after)
    floor = worst.model.attack_success_rate.share
    bad = [plant.name for plant in took if _after(plant) > plant.model.attack_success_rate.share + MOST_ABOVE_FLOOR]
    least = min(plant.before.attack_success_rate.share for plant in took)
    low, high = worst.after.attack_success_rate.interval_95 if worst.after else (0.0, 0.0)
    removed = (
        f"the defense did not remove {listed(bad)}"
        if bad
        else "the defense removed all of them"
        if len(took) > 1
        else "the defense removed it"
    )
    return Finding(
        tone="bad" if bad else "good",
        text=f"{len(took)} of {len(stress.plants)} known backdoors were planted into copies of the model with "
        f"success, and {removed}: their triggers worked on at least {percent(least)} of the photos before, and "
        f"on at most {percent(_after(worst))} after it (95 % interval {percent(low)} to {percent(high)}; without "
        f"any backdoor, that trigger works on {percent(floor)}).",
    )


def of_signs(signs: SignsResult | None) -> Finding:
    """Whether the delivered model looks as if it had a backdoor."""
    if signs is None:
        return Finding(tone="open", text="The delivered model was not examined for signs of a backdoor.")
    suspicious = [sign for sign in signs.signs if sign.decision == "suspicious"]
    silent = [sign for sign in signs.signs if sign.decision == "abstains"]
    if suspicious:
        classes = sorted({name for sign in suspicious for name in sign.suspicious_classes})
        about = f" Look at the class {listed(classes)}." if classes else ""
        return Finding(
            tone="bad",
            text=f"{len(suspicious)} of {len(signs.signs)} signs say that the delivered model may have a backdoor: "
            f"{listed([sign.title for sign in suspicious])}.{about} Clean models raise such an alarm, too, now "
            "and then: see the table.",
        )
    if len(silent) == len(signs.signs):
        return Finding(
            tone="open", text="The signs that were looked for in the delivered model do not allow a judgment."
        )
    return Finding(
        tone="open",
        text=f"None of the {len(signs.signs) - len(silent)} signs that allow a judgment is suspicious. That does not "
        "show that the delivered model is clean: the table says how many backdoors these signs miss.",
    )


def verdict(work: Finding, stress: Finding, signs: Finding) -> Finding:
    """The page in a sentence.

    Args:
        work: whether the defended model does the work of the delivered one: its accuracy, else its agreement.
        stress: see `of_stress`.
        signs: see `of_signs`.
    """
    warned = " The delivered model shows signs of a backdoor: do not use it undefended." if signs.tone == "bad" else ""
    if stress.tone == "bad":
        text = "Do not rely on the defended model: the defense left a known backdoor in a copy of it."
        return Finding(tone="bad", text=text + warned)
    if work.tone == "bad":
        text = "The defended model is too far from the delivered one to take its place."
        return Finding(tone="bad", text=text + warned)
    if stress.tone == "open":
        text = "The model is defended, but this page holds no proof that the defense works on it."
        return Finding(tone="open", text=text + warned)
    text = (
        "Use the defended model instead of the delivered one: the defense removed every known backdoor from copies "
        "of it, and keeps its work. Nobody can rule out a backdoor of a kind that was not tried."
    )
    return Finding(tone="good", text=text + warned)


def _after(plant: Plant) -> float:
    return plant.after.attack_success_rate.share if plant.after else 0.0
