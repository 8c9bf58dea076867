"""Changed answers: images that a defended model sees as another class than the model does.

If some of the user's images carry the trigger, the model answers its target to them, surely, and a defended model does
not. So these images are predicted as one class and leave it. Ordinary errors of a defense spread over the classes, and
mostly concern images of which the model was not sure. Ours:

    score(c) = a(c) - mean of a over the other classes,
    a(c) = share of the images predicted as c that are answered otherwise by the defended model, although the model was
           at least as sure of them as of the median image predicted as c

Classes with fewer predicted images than `least_of_class` are left out.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from refine.core.params import Section
from refine.proof.judging.sign import Changed, Finding, Subject

TITLE = "Answers that the defended model changes"
MEANING = (
    "The images to which the defended model answers another class than the model does. If they come from one predicted "
    "class, though the model was sure of them, look at them: some may carry a trigger. If your images contain no "
    "trigger, this sign finds nothing, whether or not the model has a backdoor."
)

Count = Annotated[int, Field(ge=1, le=100_000)]


class Params(Section):
    """Attributes:
    least_images: with fewer, the sign abstains.
    least_of_class: predicted images, for a class to be judged.
    most_changed: the sign abstains if a larger share of all answers changes: the defense then does not fit the images.
    listed: most images that are listed.
    """

    least_images: Count = 100
    least_of_class: Count = 10
    most_changed: Annotated[float, Field(ge=0, le=1)] = 0.5
    listed: Annotated[int, Field(ge=0, le=10_000)] = 200


def look(subject: Subject, params: Params, seed: int) -> Finding:
    """See `proof.judging.sign`."""
    del seed
    defended = subject.defended_probabilities
    if defended is None:
        return Finding(weak="there is no defended model to compare with")
    before, after = subject.probabilities.max(dim=1), defended.max(dim=1)
    changed = before.indices != after.indices
    share = changed.double().mean().item()
    scores = concentration(before.indices, before.values, changed, len(subject.classes), params.least_of_class)
    lost = before.values - defended.gather(1, before.indices.unsqueeze(1)).squeeze(1)
    ranked = [row for row in lost.argsort(descending=True, stable=True).tolist() if changed[row]]
    return Finding(
        scores={subject.classes[label]: score for label, score in scores.items()},
        weak=_weak(len(changed), share, len(scores), params),
        figures={"images": float(len(changed)), "changed": float(changed.sum()), "changed_share": share},
        changed=[
            Changed(
                image=subject.names[row],
                before=subject.classes[int(before.indices[row])],
                before_probability=round(before.values[row].item(), 4),
                after=subject.classes[int(after.indices[row])],
                after_probability=round(after.values[row].item(), 4),
            )
            for row in ranked[: params.listed]
        ],
    )


def concentration(predicted: Tensor, sureness: Tensor, changed: Tensor, classes: int, least: int) -> dict[int, float]:
    """The score of each class with enough predicted images.

    Args:
        predicted: by the model, int64 [N].
        sureness: the model's probability of that class, float [N].
        changed: whether the defended model answers otherwise, bool [N].
        classes: K.
        least: predicted images of a class that is scored.
    """
    shares = {}
    for label in range(classes):
        own = predicted == label
        if int(own.sum()) >= least:
            sure = sureness[own] >= sureness[own].median()
            shares[label] = (sure & changed[own]).double().mean().item()
    total = sum(shares.values())
    return {label: share - (total - share) / max(len(shares) - 1, 1) for label, share in shares.items()}


def _weak(images: int, share: float, classes: int, params: Params) -> str | None:
    if images < params.least_images:
        return f"{images} images are fewer than the {params.least_images} of the setting least_images"
    if share > params.most_changed:
        return f"{share:.0%} of all answers changed, so the defense does not fit these images"
    if classes < 2:
        return f"fewer than two classes have {params.least_of_class} predicted images"
    return None
