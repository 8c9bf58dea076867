"""D-ST: both trainings on shards whose split is written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from refine.core.errors import UserError
from refine.core.files import write_json
from refine.defending import material
from refine.defending.retraining import Retraining
from refine.defending.train import train_defense
from refine.defenses.dst import training
from refine.defenses.dst.defense import Params, load
from refine.defenses.dst.training import Extracting, groups, head_loss
from refine.models import classifier as classifiers
from refine.models.architecture import named
from refine.models.classifier import Normalization
from refine.shards.writer import Sample, write_shards
from refine.training.batches import Batch
from refine.training.checkpoint import Checkpoints
from refine.training.training_set import open_training_set
from support import description, synthetic
from tiny import CPU, MEAN, STD, classifier_card, classifier_folder, files_of, same_tensors

RECIPE = {"epochs": 3, "batch_size": 16, "optimizer": {"lr": 0.05}, "augment": {"flip": 0.5, "crop_scale": 0.8}}
SETTINGS = {"extractor": {**RECIPE, "average": 0.5}, "head": {**RECIPE, "epochs": 2}}
SAMPLES = 40


def _given(folder: Path, clean: Tensor, poisoned: Tensor, **settings: Any) -> Path:
    """What a defender is given: bright and dark images, and which of them are held for clean and for poisoned."""
    images, labels = synthetic(SAMPLES)
    (folder / material.IMAGES).mkdir(parents=True)
    flags = [
        {"split_clean": bool(one), "split_poisoned": bool(other)} for one, other in zip(clean, poisoned, strict=True)
    ]
    samples = (
        Sample(key, images[key].permute(1, 2, 0).numpy(), int(labels[key]), flags[key]) for key in range(SAMPLES)
    )
    write_shards(folder / material.IMAGES, samples, description())
    params = Params.model_validate({**SETTINGS, **settings})
    given = material.Given(defense="dst", regime="poisoned_train", settings=params.model_dump(), seed=1, images=SAMPLES)
    write_json(folder / material.NAME, given.model_dump())
    return folder


CLEAN, POISONED = torch.arange(SAMPLES) % 4 == 0, torch.arange(SAMPLES) % 10 == 3


def _train(folder: Path, given: Path, out: str = "defense", checkpoints: Checkpoints | None = None) -> dict[str, str]:
    """The files of a defense of the classifier in a folder."""
    if not (folder / "classifier").exists():
        classifier_folder(folder / "classifier")
    train_defense("dst", given, folder / "classifier", CPU, folder / out, checkpoints)
    return files_of(folder / out)


def _weights(folder: Path) -> dict[str, Tensor]:
    return dict(load(folder / "defense", folder / "classifier").classifier.network.state_dict())


def test_it_learns_a_new_network_that_tells_the_classes(tmp_path: Path) -> None:
    longer = {part: {**RECIPE, "epochs": 8, "batch_size": 8} for part in ("extractor", "head")}
    _train(tmp_path, _given(tmp_path / "given", CLEAN, POISONED, **longer))
    images, labels = synthetic(60, seed=7)
    answers = load(tmp_path / "defense", tmp_path / "classifier")(images / 255).argmax(dim=1)
    assert (answers == labels).float().mean() > 0.9
    old = classifiers.load(tmp_path / "classifier")[0].network.state_dict()
    made = _weights(tmp_path)
    assert made.keys() == old.keys()  # the projection is gone
    assert not any(torch.equal(made[name], old[name]) for name in made if name.endswith("weight"))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    given = _given(tmp_path / "given", CLEAN, POISONED)
    assert _train(tmp_path, given, "one") == _train(tmp_path, given, "two")


@pytest.mark.parametrize("stop", ["extractor 2", "head 1"])
def test_interrupted_and_gone_on_it_gives_the_same_bytes(
    tmp_path: Path, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _given(tmp_path / "given", CLEAN, POISONED)
    undisturbed = _train(tmp_path, given, "undisturbed")
    (tmp_path / "kept").mkdir()
    part, number = stop.split()
    save = Checkpoints.save

    def interrupted(self: Checkpoints, epoch: int, state: dict[str, Any]) -> None:
        save(self, epoch, state)
        if (self.folder.name == "extractor") == (part == "extractor") and epoch == int(number):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _train(tmp_path, given, "stopped", Checkpoints(tmp_path / "kept"))
    steps: list[int] = []
    real = Extracting.step
    monkeypatch.setattr(Extracting, "step", lambda self, batch: steps.append(1) or real(self, batch))
    assert _train(tmp_path, given, "stopped", Checkpoints(tmp_path / "kept")) == undisturbed
    assert len(steps) == (3 if part == "extractor" else 0)  # of the epochs that were missing


def test_the_head_alone_changes_in_its_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before: dict[str, Tensor] = {}
    modes: list[bool] = []
    real = training.retrained

    def watched(task: Any, heading: Retraining) -> str:
        before.update({name: tensor.clone() for name, tensor in heading.module.state_dict().items()})
        watch = heading.classifier.network.register_forward_hook(lambda network, *_: modes.append(network.training))
        sha256 = real(task, heading)
        watch.remove()
        return sha256

    monkeypatch.setattr(training, "retrained", watched)
    _train(tmp_path, _given(tmp_path / "given", CLEAN, POISONED))
    after = _weights(tmp_path)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight", "head.bias"}
    assert modes
    assert not any(modes)


def test_samples_of_neither_group_shape_the_features_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {"features": 0, "head": 0}
    of_features, of_head = Extracting.step, training.Heading.step
    monkeypatch.setattr(Extracting, "step", lambda self, batch: _noted(seen, "features", of_features, self, batch))
    monkeypatch.setattr(training.Heading, "step", lambda self, batch: _noted(seen, "head", of_head, self, batch))
    _train(tmp_path, _given(tmp_path / "given", CLEAN, POISONED))
    assert seen == {"features": 3 * SAMPLES, "head": 2 * int((CLEAN | POISONED).sum())}


def _noted(seen: dict[str, int], name: str, step: Any, task: Any, batch: Batch) -> Any:
    seen[name] += len(batch)
    return step(task, batch)


def test_the_groups_are_those_of_the_shards_in_their_order(tmp_path: Path) -> None:
    given = _given(tmp_path / "given", CLEAN, POISONED)
    images, _ = open_training_set(given / material.IMAGES, ("label", "split_clean", "split_poisoned"), CPU)
    clean, poisoned = groups(images, CPU)
    assert torch.equal(clean, CLEAN)
    assert torch.equal(poisoned, POISONED)


def _batch(clean: list[int], poisoned: list[int]) -> Batch:
    labels = torch.arange(len(clean)) % 3
    return Batch(torch.zeros(len(clean), 3, 4, 4), (labels, torch.tensor(clean), torch.tensor(poisoned)))


def test_the_heads_loss_is_that_of_clean_samples_less_a_little_of_the_poisoned_ones() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    batch = _batch([1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 0])
    each = [-logits[row].log_softmax(dim=0)[row % 3].item() for row in range(6)]
    terms = head_loss(Params(poisoned_weight=0.25))(logits, batch.pixels, batch)
    clean, poisoned = (each[0] + each[2] + each[4]) / 3, (each[1] + each[3]) / 2
    assert terms["loss"].item() == pytest.approx(clean - 0.25 * poisoned, rel=1e-5)
    assert terms["accuracy"].item() == pytest.approx(
        sum(logits[row].argmax().item() == row % 3 for row in (0, 2, 4)) / 3
    )


@pytest.mark.parametrize(
    ("clean", "poisoned"), [([0] * 4, [0] * 4), ([1] * 4, [0] * 4), ([0] * 4, [1] * 4), ([0], [0])]
)
def test_a_batch_without_a_part_has_a_finite_loss_and_gradient(clean: list[int], poisoned: list[int]) -> None:
    logits = torch.randn(len(clean), 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    batch = _batch(clean, poisoned)
    loss = head_loss(Params())(logits, batch.pixels, batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_no_poisoned_sample_is_no_obstacle_and_no_clean_one_is_refused(tmp_path: Path) -> None:
    none = torch.zeros(SAMPLES, dtype=torch.bool)
    _train(tmp_path, _given(tmp_path / "without", CLEAN, none))
    with pytest.raises(UserError, match=r"^defense_settings\.dst\.split: sd holds no training image for clean"):
        _train(tmp_path, _given(tmp_path / "refused", none, POISONED), "refused")
    assert not (tmp_path / "refused/card.json").exists()


def test_where_the_split_cannot_be_trusted_the_weights_stay(tmp_path: Path) -> None:
    given = _given(tmp_path / "given", CLEAN, POISONED)
    told = json.loads((given / material.NAME).read_text(encoding="utf-8"))
    split = material.GivenSplit(name="sd", clean=12, poisoned=5, gate="no two groups", abstain=True)
    write_json(given / material.NAME, {**told, "split": split.model_dump()})
    files = _train(tmp_path, given)
    assert {"history.csv", "extractor_history.csv"} < set(files)
    assert same_tensors(_weights(tmp_path), classifiers.load(tmp_path / "classifier")[0].network.state_dict())


def test_an_architecture_with_a_head_of_another_kind_is_trained_as_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = named(name="airbench", width=8)
    normalization = Normalization(mean=MEAN, std=STD)
    made = classifiers.freeze(classifiers.build(architecture, 3, normalization, 16))
    (tmp_path / "classifier").mkdir()
    card = classifier_card().model_copy(update={"architecture": architecture})
    classifiers.save(tmp_path / "classifier", made, card)
    _train(tmp_path, _given(tmp_path / "given", CLEAN, POISONED))
    first = _weights(tmp_path)["whiten.weight"]
    assert torch.equal(first[:12], -first[12:])  # computed from images


def test_the_published_recipe_is_the_default() -> None:
    params = Params()
    extractor, head = params.extractor, params.head
    assert (extractor.epochs, extractor.batch_size, extractor.drop_last) == (200, 512, False)
    assert (extractor.optimizer.lr, extractor.optimizer.weight_decay) == (0.5, 1e-4)
    assert (head.epochs, head.batch_size, head.optimizer.lr, head.optimizer.weight_decay) == (10, 512, 5, 0)
    assert extractor.augment == head.augment
    assert (params.temperature, params.positives, params.poisoned_weight) == (0.1, "label_any", 0.001)
