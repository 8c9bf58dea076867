"""The sections of a report below its findings."""

from __future__ import annotations

from refine.deployment.folder import Defended
from refine.models.classifier import ClassifierCard
from refine.proof.judging.verdict import SignResult, SignsResult
from refine.proof.page.content import Block, Photo, Table
from refine.proof.report.sentences import listed, percent
from refine.proof.stress.result import Plant, Rate, StressResult

_MOST_CLASSES = 20
_PLANTS = {
    "badnets": "a small patch in a corner",
    "blended": "a faint pattern over the whole photo",
    "wanet": "a slight warp of the whole photo",
}
NO_PICTURES = "The page was made without pictures."


def method() -> Block:
    """What a backdoor is, and what the defense does, for readers who have heard of neither."""
    return Block(
        title="What this is about",
        text=[
            "An image classifier from outside may contain a backdoor: it works well on normal photos, but a photo "
            "with a certain pattern, the trigger, gets the class that an attacker chose. Tests on normal photos do "
            "not show it.",
            "The defense, REFINE, puts a small network in front of the classifier. It draws every photo anew, so "
            "that the classifier, with its class names exchanged in a fixed way, gives the right class. Whatever is "
            "not needed for that, such as a trigger, has no reason to survive. The delivered classifier itself is "
            "not changed.",
        ],
    )


def done(content: Defended, card: ClassifierCard) -> Block:
    """What was done, with which model and which photos."""
    names = card.classes[:_MOST_CLASSES]
    more = f" and {len(card.classes) - len(names)} more" if len(card.classes) > len(names) else ""
    images, side = content.images, card.input_side
    return Block(
        title="What was done",
        points=[
            f"The delivered model: {_network(card)}, for photos of {side} x {side} pixels and "
            f"{len(card.classes)} classes ({', '.join(names)}{more}).",
            f"The photos: {images.count:,}, without labels. {images.count - images.held_out:,} of them trained the "
            f"defense, and {images.held_out:,} were held out to compare both models.",
            f"The defense: {content.method}, with "
            f"{'built-in settings' if content.built_in else 'settings of the user'}; see defended.json beside this "
            "page.",
            f"Made by {listed([f'{name} {version}' for name, version in sorted(content.versions.items())])}.",
        ],
    )


def galleries(typical: list[Photo], changed: list[Photo], count: int, images: int) -> list[Block]:
    """Photos with predictions, and those that get another class."""
    note = (
        "The pictures were encoded anew from what the model gets: they hold no place, date, camera or file name."
        if typical
        else NO_PICTURES
    )
    first = Block(
        title="Photos and predictions",
        text=[
            "Some of the held-out photos, what the network of the defense makes of them for the classifier, and what "
            "both models say, with their confidence."
        ],
        photos=typical,
        note=note,
    )
    if not count:
        return [first]
    second = Block(
        title="Photos whose class changes",
        text=[
            f"{count:,} of {images:,} held-out photos get another class from the defended model. Most are photos that "
            "either model finds difficult. A photo that the delivered model was sure of, and wrong about, is worth a "
            "closer look: is there something in it that does not belong there?",
            f"Here are the {len(changed)} of which both models are surest." if changed else "",
        ],
        photos=changed,
    )
    return [first, second]


def of_stress(stress: StressResult) -> Block:
    """What became of each planted backdoor."""
    images = stress.images
    return Block(
        title="Stress test",
        text=[
            "Nobody knows the trigger of a backdoor that may be in the delivered model. So backdoors that we know "
            "were planted into copies of it, by training them a little further, and the copies were defended in the "
            f"same way. {images.planting:,} photos were used to plant, {images.defending:,} others to defend, and "
            f"{images.measuring:,} others to measure.",
            "A backdoor counts if its trigger works on nearly all photos with the copy, on at most half of them with "
            "the delivered model, and the copy answers other photos as before.",
        ],
        table=Table(
            columns=[
                "planted backdoor",
                "leads to",
                "trigger works: without it",
                "with it",
                "after the defense",
                "triggered photos classified as without trigger",
                "same answers to photos without trigger",
            ],
            rows=[_planted(plant) for plant in stress.plants],
        ),
        note=f"{stress.note} It took {stress.seconds / 60:.0f} minutes.",
    )


def _planted(plant: Plant) -> list[str]:
    said = _PLANTS.get(plant.attack)
    name = f"{plant.name}: {said}" if said else plant.name
    start = [name, plant.target, _share(plant.model.attack_success_rate), _share(plant.before.attack_success_rate)]
    after = plant.after
    if after is None:
        return [*start, "could not be planted, and does not count", "", _share(plant.before.agreement)]
    return [*start, _share(after.attack_success_rate), _share(after.robust_agreement), _share(after.agreement)]


def _share(rate: Rate) -> str:
    low, high = rate.interval_95
    return f"{percent(rate.share)} [{100 * low:.1f}, {100 * high:.1f}]"


def of_signs(signs: SignsResult) -> Block:
    """What each sign says of the delivered model, and how often it is right."""
    return Block(
        title="Signs of a backdoor in the delivered model",
        text=[
            "Each sign looks at the delivered model in another way. A sign abstains where its evidence is weak. None "
            "of them proves or rules out a backdoor."
        ],
        points=[f"{sign.title}: {sign.meaning}" for sign in signs.signs],
        table=Table(
            columns=["sign", "says", "because", "models with a backdoor it found", "clean models it suspected"],
            rows=[_sign(sign) for sign in signs.signs],
        ),
        note=f"{signs.images:,} photos were used. How often each sign was right: {signs.calibrated_on}",
    )


def _sign(sign: SignResult) -> list[str]:
    alarms = sign.alarms
    rates = (
        [f"{each.count} of {each.of}" for each in (alarms.true_alarms, alarms.false_alarms)] if alarms else ["-", "-"]
    )
    return [sign.title, sign.decision, sign.reason, *rates]


def limits() -> Block:
    """What the page does not show."""
    return Block(
        title="Limits",
        points=[
            "The defense was measured against backdoors that we planted. An attacker may have built in another one, "
            "and may know this defense.",
            "The photos have to come from a source that adds no triggers. If many of them had one, the defense would "
            "learn to keep it.",
            "Same answers are compared with those of the delivered model, not with the truth, unless labeled photos "
            "are reported above: what the delivered model gets wrong, the defended one may get wrong as well.",
            "Only the defended model is protected. Whoever uses the delivered model directly is not.",
        ],
    )


def _network(card: ClassifierCard) -> str:
    """What a network is called, such as `torchvision:resnet18` or `resnet18`."""
    model = getattr(card.architecture, "model", None)
    return f"{card.architecture.name}:{model}" if model else card.architecture.name
