"""The examples of CONTRIBUTING.md work: each is put into a copy of the project, with no other change."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from refine.shards.reading.reader import read_split
from support import PROJECT, TINY_PARAMS, environment, run, tiny_project, write_params

EXAMPLES: dict[str, str] = dict(
    re.findall(
        r"`(src/refine/\S+\.py)`:\n\n```python\n(.+?)```",
        (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
)
LINES = 50
PARAMS = {
    **TINY_PARAMS,
    "download": {"source": "slopes", "samples_per_shard": 8},
    "sources": {"slopes": {"images": 40}},
    "poison_dataset": {"attack": {"name": "frame"}, "seed": 1},
    "attacks": {"frame": {"level": 200}},
    "train_backdoor": {**TINY_PARAMS["train_backdoor"], "network": {"name": "small_cnn", "width": 8}},
    "defenses": ["blur"],
}
NAMES = ("frame", "slopes", "small_cnn", "blur")
GENERIC = (
    "tests/attacks/test_every_attack.py",
    "tests/architectures/test_every_architecture.py",
    "tests/core/test_bounds.py",
    "tests/defending/test_every_defense.py",
    "tests/training/test_lone_image.py",
)
"""Tests of all components of a kind."""
STAGES = (
    ["download"],
    ["poison_dataset"],
    ["train_backdoor"],
    ["give_data", "blur"],
    ["train_defense", "blur"],
    ["evaluate_defense", "blur"],
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which all examples ran together."""
    folder = tiny_project(tmp_path_factory.mktemp("contributed") / "project")
    shutil.copytree(PROJECT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in EXAMPLES.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(code, encoding="utf-8")
    write_params(folder, PARAMS)
    for stage, *arguments in STAGES:
        result = run(folder, "python", f"stages/{stage}.py", *arguments, env=environment(PYTHONPATH="src"))
        assert result.returncode == 0, f"{stage}: {result.stderr}"
    return folder


def test_there_is_a_short_example_of_each_kind_of_component() -> None:
    assert {Path(path).parts[2] for path in EXAMPLES} == {"architectures", "attacks", "defenses", "sources"}
    assert max(len(code.splitlines()) for code in EXAMPLES.values()) <= LINES


def test_the_examples_pass_the_style_check(project: Path) -> None:
    assert run(project, "ruff", "check", *EXAMPLES).stdout == "All checks passed!\n"
    assert run(project, "ruff", "format", "--check", *EXAMPLES).returncode == 0


def test_the_tests_of_all_components_of_a_kind_pass_for_the_examples(project: Path) -> None:
    chosen = " or ".join(NAMES)
    command = ("python", "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", chosen, *GENERIC)
    result = run(project, *command, env=environment(PYTHONPATH="src"))
    assert result.returncode == 0, result.stdout
    passed = re.findall(r"^(\S+)::.*\b(" + "|".join(NAMES) + r")\b.* PASSED", result.stdout, re.MULTILINE)
    assert {name for _, name in passed} == set(NAMES)
    assert {test for test, _ in passed} == set(GENERIC)


def test_the_source_writes_its_images(project: Path) -> None:
    train, test = (read_split(project / "data/raw" / split) for split in ("train", "test"))
    assert train.manifest.classes == ["right", "left"]
    assert (len(train.images), len(test.images)) == (40, 20)
    left, right = train.images[..., :8].float().mean(dim=(1, 2, 3)), train.images[..., -8:].float().mean(dim=(1, 2, 3))
    assert ((right < left).long() == train.labels).all()


def test_the_attack_draws_its_trigger(project: Path) -> None:
    train, clean = read_split(project / "data/poisoned/train"), read_split(project / "data/raw/train")
    framed = (train.images[:, :, [0, -1]] == 200).flatten(1).all(dim=1)
    framed &= (train.images[:, :, :, [0, -1]] == 200).flatten(1).all(dim=1)
    assert framed.tolist() == train.flags("poisoned").tolist()
    assert framed.sum() == 4
    assert (train.images[:, :, 1:-1, 1:-1] == clean.images[:, :, 1:-1, 1:-1]).all()


def test_the_architecture_is_trained(project: Path) -> None:
    card = json.loads((project / "models/backdoor/card.json").read_text(encoding="utf-8"))
    assert card["architecture"] == {"name": "small_cnn", "width": 8}
    with (project / "models/backdoor/history.csv").open(encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


def test_the_defense_is_measured(project: Path) -> None:
    figures = json.loads((project / "metrics/blur.json").read_text(encoding="utf-8"))
    assert {"benign_accuracy", "attack_success_rate", "robust_accuracy", "der"} < set(figures)
    assert (project / "models/defenses/blur/card.json").is_file()
