"""Faults put into a copy of the project one at a time: each has to turn the test that guards against it red."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import PROJECT, environment, run

COPIED = ("src", "stages", "tests", "data/own", "dvc.yaml", "params.yaml", "pyproject.toml", ".dvcignore")


@dataclass(frozen=True)
class Mutant:
    """A fault and its guard.

    Attributes:
        fault: what is wrong in the copy.
        edits: file, text that stands there exactly once, and what takes its place.
        guard: the test that has to fail.
    """

    fault: str
    edits: tuple[tuple[str, str, str], ...]
    guard: str


MUTANTS = (
    Mutant(
        "inverse permutation",
        (("src/refine/defenses/label_map.py", "torch.argsort(permutation)", "permutation"),),
        "tests/defenses/test_label_map.py::test_the_score_of_class_j_moves_to_its_place_in_the_permutation",
    ),
    Mutant(
        "classifier left in train mode",
        (("src/refine/models/classifier.py", "classifier.eval().requires", "classifier.train().requires"),),
        "tests/training/test_refine_training.py::"
        "test_the_classifier_is_the_same_after_training_batch_statistics_included",
    ),
    Mutant(
        "true labels in the loss",
        (
            (
                "src/refine/data/training_set.py",
                "    settings = machine()\n",
                '    facts, settings = ("label",), machine()\n',
            ),
            (
                "src/refine/training/pseudo_labels.py",
                "batch.facts[-1] if self._once else self.of(augmented)",
                "batch.facts[-1]",
            ),
        ),
        "tests/training/test_refine_training.py::test_true_labels_leave_no_trace",
    ),
    Mutant(
        "ASR counted over the target class",
        (
            (
                "src/refine/poisoning/poison.py",
                "attack.relabel(test.labels) != test.labels",
                "torch.ones_like(test.labels, dtype=torch.bool)",
            ),
        ),
        "tests/attacks/test_badnets.py::test_test_images_of_the_target_class_are_left_out",
    ),
    Mutant(
        "trigger mirrored at test",
        (
            (
                "src/refine/poisoning/poison.py",
                "_apply(attack.trigger, triggered,",
                "_apply(lambda images, keys: attack.trigger(images.flip(3), keys).flip(3), triggered,",
            ),
        ),
        "tests/poisoning/test_poison.py::"
        "test_triggered_images_show_the_trigger_where_the_attack_puts_it_and_leave_out_the_target_class",
    ),
    Mutant(
        "clean-label trigger no stronger at test",
        (("src/refine/attacks/sig.py", "self.params.test_amplitude * self", "self.params.amplitude * self"),),
        "tests/attacks/test_sig.py::test_the_wave_is_weaker_on_training_images_than_at_test",
    ),
    Mutant(
        "a trigger from a file that DVC does not see",
        (("src/refine/attacks/custom.py", "inside(self.setting.own_files, name)", "self.setting.own_files / name"),),
        "tests/attacks/test_custom.py::test_a_file_outside_the_folder_is_refused",
    ),
    Mutant(
        "flips that mirror a trigger that comes after them",
        (("src/refine/training/backdoor.py", "if self.twins is not None and settings.flip", "if False"),),
        "tests/attacks/test_batt.py::test_every_poisoned_image_is_flipped_first_and_turned_then",
    ),
    Mutant(
        "U-Net evaluated in train mode",
        (("src/refine/defenses/refine.py", "return defence.eval()", "return defence.train()"),),
        "tests/defenses/test_refine.py::"
        "test_a_loaded_defence_is_in_eval_mode_so_that_an_answer_does_not_depend_on_its_batch",
    ),
    Mutant(
        "labels read where only images are wanted",
        (("src/refine/data/shard.py", "if not only_images:", "if True:"),),
        "tests/data/test_shards.py::test_where_only_images_are_wanted_nothing_else_is_opened",
    ),
    Mutant(
        "BGR",
        (("src/refine/data/shard.py", ".permute(0, 3, 1, 2)", ".permute(0, 3, 1, 2).flip(1)"),),
        "tests/data/test_shards.py::test_what_was_written_is_read",
    ),
    Mutant(
        "BGR in images that another program wrote",
        (("src/refine/data/shard.py", ".permute(2, 0, 1)", ".permute(2, 0, 1).flip(0)"),),
        "tests/data/test_shards.py::test_an_image_that_another_program_wrote_is_read_as_well",
    ),
    Mutant(
        "shifts of the wrong axis in a convolution's gradient",
        (("src/refine/models/convolution.py", ".permute(0, 1, 2, 4, 5, 3)", ".permute(0, 1, 2, 5, 4, 3)"),),
        "tests/models/test_convolution.py::test_weight_gradient_in_float64_to_the_last_digits",
    ),
    Mutant(
        "batch statistics left out of the moving average",
        (("src/refine/training/average.py", "use_buffers=True", "use_buffers=False"),),
        "tests/training/test_loop.py::test_the_moving_average_of_weights_and_statistics_is_what_counts",
    ),
    Mutant(
        "random state absent from the checkpoint",
        (("src/refine/training/loop.py", '        self._random.set_state(state["random"])\n', ""),),
        "tests/training/test_interruption.py::"
        "test_killed_at_a_critical_moment_it_ends_as_if_undisturbed[inside a checkpoint's write-train_refine]",
    ),
    Mutant(
        "a dependency missing",
        (("dvc.yaml", "      - src/refine/training/refine.py\n", ""),),
        "tests/pipeline/test_dependencies.py::TestEachStage::"
        "test_the_code_that_its_source_reaches_is_the_code_that_it_declares",
    ),
    Mutant(
        "a dependency too many",
        (("dvc.yaml", "      - src/refine/training/refine.py\n", "      - src/refine/training\n"),),
        "tests/pipeline/test_dependencies.py::TestEachStage::"
        "test_the_code_that_its_source_reaches_is_the_code_that_it_declares",
    ),
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project without its outputs."""
    for name in COPIED:
        source, target = PROJECT / name, tmp_path / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    return tmp_path / "copy"


def _failed(copy: Path, *tests: str) -> bool:
    """Whether a test failed (1); that it could not run at all (2 and more) is an error here."""
    command = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    result = run(copy, *command, env=environment(PYTHONPATH="src", OMP_NUM_THREADS="1"))
    assert result.returncode in (0, 1), result.stdout + result.stderr
    return result.returncode == 1


def test_without_a_fault_every_guard_is_green(copy: Path) -> None:
    assert not _failed(copy, *sorted({mutant.guard for mutant in MUTANTS}))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_a_fault_turns_its_guard_red(copy: Path, mutant: Mutant) -> None:
    for file, right, wrong in mutant.edits:
        text = (copy / file).read_text(encoding="utf-8")
        assert text.count(right) == 1, f"{file} no longer holds {right!r} once; adapt the mutant"
        (copy / file).write_text(text.replace(right, wrong), encoding="utf-8")
    assert _failed(copy, mutant.guard)
