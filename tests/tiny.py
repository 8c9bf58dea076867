"""Tiny models and poisoned data sets, made in no time."""

from __future__ import annotations

import csv
import hashlib
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from refine.backdoor.params import TrainBackdoorParams
from refine.core.files import new_folder, sha256_of, write_json
from refine.core.registry import ARCHITECTURES, component
from refine.defenses.refine import defense as refine
from refine.defenses.refine.card import InputSpace, RefineCard, Snapshot
from refine.defenses.refine.defense import Refine
from refine.defenses.refine.model.label_map import derangement
from refine.defenses.refine.model.transforms.unet import params as unet
from refine.defenses.refine.model.transforms.unet.transform import UNet
from refine.defenses.refine.training.params import TrainRefineParams
from refine.deployment.folder import NAME, Agreement, Defended, Images, sums_of
from refine.models import classifier as classifiers
from refine.models.architecture import Architecture, named
from refine.models.classifier import Classifier, ClassifierCard, Normalization
from refine.models.device import Compute
from refine.poisoning.attack import AnyAttack, Chosen, Setting
from refine.poisoning.poison import Outputs, open_clean, poison_dataset
from refine.poisoning.saved import SavedAttack
from refine.shards.format.manifest import Manifest
from refine.shards.reading.reader import Split, read_split
from refine.shards.reading.tensors import save_tensors
from refine.shards.writer import Sample, write_shards
from refine.splitting.folder import SplitCard
from refine.splitting.protocol import Task as SplitTask
from refine.splitting.split import split_samples
from refine.training.training_set import Resident
from support import NARROW, synthetic, write_split

CPU = Compute(torch.device("cpu"), 1)
WIDTH = 8
ALL_CHANGES = {"crop_scale": 0.8, "shift": 2, "flip": 0.5, "grayscale": 0.2}
"""Of an augmentation."""
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


NETWORKS: dict[str, dict[str, Any]] = {
    "timm": {"model": "test_resnet"},
    "torchvision": {"model": "shufflenet_v2_x0_5"},
}
"""Settings that make networks small, of architectures without a width."""


def small(name: str) -> Architecture:
    """A small network of an architecture."""
    wide = "width" in component(ARCHITECTURES, name, "a test").Params.model_fields
    return named(name, **NETWORKS.get(name, {"width": WIDTH} if wide else {}))


def classifier(classes: int = 3, side: int = 16, seed: int = 0) -> Classifier:
    """A random frozen classifier that answers differently to images of different brightness.

    Its batch statistics have moved from where they begin.
    """
    torch.manual_seed(seed)
    architecture = named(name="resnet18", width=WIDTH)
    made = classifiers.build(architecture, classes, Normalization(mean=MEAN, std=STD), 16)
    with torch.no_grad():
        images = synthetic(8 * classes, side, classes)[0] / 255
        made.train()(images)
        head = made.network.get_parameter("head.weight"), made.network.get_parameter("head.bias")
        head[0].mul_(1.5 / made.eval()(images).std(dim=0).view(-1, 1))
        head[1].sub_(made(images).mean(dim=0))
    return classifiers.freeze(made)


def classifier_card(classes: int = 3, side: int = 16) -> ClassifierCard:
    """The card of `classifier`, its sum still to be filled in."""
    return ClassifierCard(
        weights_sha256="0" * 64,
        architecture=named(name="resnet18", width=WIDTH),
        classes=[f"class-{label}" for label in range(classes)],
        normalization=Normalization(mean=MEAN, std=STD),
        input_side=side,
        training={},
    )


def classifier_folder(folder: Path, classes: int = 3, side: int = 16, seed: int = 0) -> Classifier:
    """Writes a random classifier by hand, without the stage that trains one."""
    made = classifier(classes, side, seed)
    folder.mkdir(parents=True)
    classifiers.save(folder, made, classifier_card(classes, side))
    return made


def defense(of: Classifier, classes: int = 3, space: InputSpace = "pixel", seed: int = 0) -> Refine:
    """A defense in eval mode with a random transform, under which images of different brightness stay different.

    Its batch statistics have moved from where they begin.
    """
    torch.manual_seed(seed)
    made = Refine(of, UNet(WIDTH), derangement(classes, 666), space)
    with torch.no_grad():
        images = synthetic(8 * classes, 16, classes)[0] / 255
        outlet = made.train().transform.outlet
        made.transform(images)
        out = made.eval().transform(images).transpose(0, 1).flatten(1)
        outlet.weight.mul_((0.3 / out.std(dim=1)).view(-1, 1, 1, 1))
        outlet.bias.zero_()
        outlet.bias.add_(0.5 - made.transform(images).mean(dim=(0, 2, 3)))
    return made


def defense_folder(
    folder: Path, classifier_folder: Path, classes: int = 3, space: InputSpace = "pixel", seed: int = 0
) -> Refine:
    """Writes a random defense for a classifier's folder, with snapshots of epochs 1 (of another transform) and 2."""
    of, card = classifiers.load(classifier_folder)
    made = defense(of, classes, space, seed)
    (folder / "snapshots").mkdir(parents=True)
    snapshots = []
    for epoch, state in ((1, _state(defense(of, classes, space, seed + 1))), (2, _state(made))):
        file = f"snapshots/epoch-{epoch:04d}.safetensors"
        snapshots.append(Snapshot(epoch=epoch, file=file, sha256=save_tensors(folder / file, state)))
    refine.save(
        folder,
        made,
        RefineCard(
            weights_sha256="0" * 64,
            transform=unet.Params(first_channels=WIDTH),
            input_space=space,
            num_classes=classes,
            classifier_sha256=card.weights_sha256,
            snapshots=snapshots,
            training={},
        ),
    )
    return made


def pack(folder: Path, images_sha256: str = "0" * 64) -> None:
    """Makes a defended folder of one that holds `classifier` and `defense`."""
    record = Defended(
        classifier=sums_of(folder / "classifier"),
        defense=sums_of(folder / "defense"),
        method="refine",
        settings={},
        built_in=False,
        images=Images(count=2, sha256=images_sha256, held_out=1, classes=1),
        agreement=Agreement(images=1, same=1),
        versions={"refine": "0.0.0"},
    )
    write_json(folder / NAME, record.model_dump())


def _state(of: Refine) -> dict[str, Tensor]:
    return refine.state(of.permutation, of.transform.state_dict())


@dataclass(frozen=True)
class Poisoned:
    """A data set before and after poisoning.

    Attributes:
        outputs: where the poisoned one lies.
        record: content of `attack.json`.
    """

    train: Split
    test: Split
    poisoned_train: Split
    triggered_test: Split
    outputs: Outputs
    record: SavedAttack


def raw(folder: Path, images: int = 60, classes: int = 3, side: int = 16, seed: int = 0) -> tuple[Split, Split]:
    """Clean splits on disk: as many training images as asked, and half as many test images."""
    for name, count, offset in (("train", images, 0), ("test", images // 2, 1)):
        write_split(folder / name, *synthetic(count, side, classes, seed + offset), classes=classes)
    return read_split(folder / "train"), read_split(folder / "test")


def attack(name: str, train: Split, **settings: Any) -> AnyAttack:
    """An attack for a data set."""
    module = component("refine.attacks", name, "a test")
    setting = Setting(len(train.manifest.classes), train.manifest.side, own_files(), name)
    made: AnyAttack = module.Attack(module.Params.model_validate({**SMALL.get(name, {}), **settings}), setting)
    return made


def ready(name: str, side: int, classes: int = 10, seed: int = 1, **settings: Any) -> AnyAttack:
    """An attack with its tensors, for images of this side."""
    module = component("refine.attacks", name, "a test")
    made: AnyAttack = module.Attack(module.Params.model_validate(settings), Setting(classes, side, own_files(), name))
    nothing = torch.zeros(0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    made.tensors = made.prepare(*synthetic(4, side), Chosen(nothing, nothing), generator)
    return made


def is_nearest(levels: Tensor, exact: NDArray[np.float64]) -> bool:
    """Whether uint8 levels are the nearest ones to exact values, which are clipped to 0..255."""
    return bool((np.abs(levels.numpy().astype(np.float64) - exact.clip(0, 255)) <= 0.5 + 1e-3).all())


def faintness(picture: Tensor, alpha: float) -> float:
    """PSNR in dB of images of CIFAR-10 with a picture blended over them, by the published mean and std of each channel.

    Args:
        picture: uint8 [3, side, side], which does not go with the images.
    """
    mean, std = (255 * torch.tensor(of).double() for of in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)))
    levels = picture.double()
    squared = std**2 + (levels.mean(dim=(1, 2)) - mean) ** 2 + levels.var(dim=(1, 2))
    return float(20 * torch.log10(255 / (alpha * squared.mean().sqrt())))


@cache
def own_files() -> Path:
    """A folder as the user's own one, with `image.png`: a picture of 24 x 24 pixels, transparent in its left half."""
    folder = Path(_OWN.name)
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 4), dtype=np.uint8)
    picture[:, :12, 3] = 0
    Image.fromarray(picture).save(folder / "image.png")
    return folder


_OWN = tempfile.TemporaryDirectory()
_MOMENT = {"epochs": 1, "batch_size": 16}
_SOURCE = {"network": {"name": "resnet18", "width": WIDTH}, "recipe": {**_MOMENT, "optimizer": {"lr": 0.01}}}
"""Slow enough for its few steps: a network that is sure beyond float32 has no gradient to follow."""
SMALL: dict[str, dict[str, Any]] = {
    "adaptive_patch": {"rate": 0.1, "cover_rate": 0.2},
    "clean_label": {"source": _SOURCE},
    "custom": {"image": f"{_OWN.name}/image.png"},
    "input_aware": {"width": 4, "mask_recipe": _MOMENT, "network": _SOURCE["network"], "recipe": _MOMENT},
    "label_consistent": {"source": _SOURCE, "perturbation": {"steps": 3}},
    "low_frequency": {"source": _SOURCE, "perturbation": {"steps": 5}},
    "ssba": {"bits": 4, "width": 4, "recipe": _MOMENT},
}
"""Settings of attacks that need files, more images or more time than a test has, and others instead."""
_FEW: dict[str, Any] = {"epochs": 2, "batch_size": 8}
_BRIEF: dict[str, Any] = {"recipe": _FEW}
_SLOW: dict[str, Any] = {"recipe": {**_FEW, "optimizer": {"lr": 0.001}}}
_ADAM: dict[str, Any] = {**_FEW, "optimizer": {"name": "adamw", "lr": 0.001}}
_BTI: dict[str, Any] = {
    **dict.fromkeys(("pretraining", "mask", "generator", "recipe"), _ADAM),
    "rounds": 2,
    "first_channels": 8,
}
SMALL_DEFENSES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bcu", "distilled"), _BRIEF),
    "dbr": {"split": "oracle", **_BRIEF},
    "dst": {"split": "oracle", "extractor": {"epochs": 2, "batch_size": 16}, "head": {"epochs": 2, "batch_size": 8}},
    **dict.fromkeys(("d3", "fp", "fst", "ft", "ft_sam", "sau"), _SLOW),
    "anp": {"validation": 0.2, "recipe": {**_FEW, "min_steps": 0}},
    **dict.fromkeys(("bti_dbf", "bti_dbf_u"), _BTI),
    "ibau": _SLOW,
    "local_mae": {
        **{"patch_side": 4, "width": 16, "depth": 1, "heads": 2},
        **{"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "recipe": _ADAM},
    },
    "nad": {"weights": [10.0], "teacher": _SLOW["recipe"], **_SLOW},
    "nc": {"search": {"steps": 10}, **_SLOW},
}
"""Settings of defenses that are trained for longer than a test has."""


def poisoned(folder: Path, name: str, of: AnyAttack, clean: tuple[Split, Split], seed: int = 1) -> Poisoned:
    """Poisons clean splits and reads the result back."""
    outputs = Outputs.below(folder)
    record = poison_dataset(name, of, seed, open_clean(*(_stored(split, folder.parent) for split in clean)), outputs)
    return Poisoned(*clean, read_split(outputs.train), read_split(outputs.test), outputs, record)


def _stored(split: Split, home: Path) -> Path:
    """A split as a folder of shards in another one; the same split has the same name."""
    columns = split.keys.tolist(), split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist(), split.infos
    samples = [Sample(*column) for column in zip(*columns, strict=True)]
    digest = hashlib.sha256(split.manifest.model_dump_json().encode())
    for sample in samples:
        digest.update(repr((sample.key, sample.label, sample.info)).encode() + sample.image.tobytes())
    folder = home / f"clean-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        with new_folder(folder) as part:
            write_shards(part, samples, split.manifest.description)
    return folder


def split_folder(folder: Path, images: Path, name: str = "oracle", **settings: Any) -> SplitCard:
    """Splits a poisoned training set; by default into groups that the truth was told about."""
    params = component("refine.splits", name, "a test").Params.model_validate(settings)
    task = SplitTask(params, images, named(name="resnet18", width=WIDTH), CPU)
    return split_samples(name, task, folder)


def badnets(folder: Path) -> Poisoned:
    """48 training images of three classes, a quarter of them poisoned."""
    clean = raw(folder / "raw", images=48)
    return poisoned(folder / "poisoned", "badnets", attack("badnets", clean[0], rate=0.25), clean)


def training_set(split: Split) -> tuple[Resident, Manifest]:
    """A poisoned split as train-backdoor takes it."""
    fields = (split.labels, split.flags("poisoned").long(), split.keys)
    return Resident(split.images, fields, "cpu", [shard.samples for shard in split.manifest.shards]), split.manifest


def backdoor_params(**recipe: Any) -> TrainBackdoorParams:
    """Parameters of train-backdoor for a run of a moment."""
    base = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.05}}
    network = {"name": "resnet18", "width": WIDTH}
    return TrainBackdoorParams.model_validate({"seed": 1, "network": network, "recipe": {**base, **recipe}})


def refine_params(recipe: dict[str, Any] | None = None, **changes: Any) -> TrainRefineParams:
    """Parameters of train-refine for a run of a moment."""
    base = {"epochs": 2, "batch_size": 8, "optimizer": {"lr": 0.01}, **(recipe or {})}
    content = {
        "seed": 1,
        "transform": NARROW,
        "input_space": "pixel",
        "recipe": base,
        **changes,
    }
    return TrainRefineParams.model_validate(content)


def files_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its relative path.

    Sums, not contents: where two runs differ, pytest would spell out the difference of all bytes, for minutes.
    """
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states hold the same names and the very same values."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def history(folder: Path, name: str = "history.csv") -> list[dict[str, float]]:
    """Rows of a training's history."""
    with (folder / name).open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
