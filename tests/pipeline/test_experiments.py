"""What `dvc exp run` leaves in a checkout is what docs/experiments.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from repositories import ok
from support import is_one_sentence, run


@pytest.mark.parametrize(("options", "changed"), [(["--temp"], ""), ([], " M params.yaml\n")])
def test_a_failed_experiment_leaves_its_typo_in_the_parameters_unless_it_ran_in_a_copy(
    repo: Path, options: list[str], changed: str
) -> None:
    result = run(repo, "dvc", "exp", "run", *options, "-S", "download.samples_per_shard=many")
    assert is_one_sentence(result, "download.samples_per_shard: input should be a valid integer, not 'many'")
    assert ok(repo, "git", "status", "--porcelain") == changed


def test_the_committed_state_comes_back_as_documented(repo: Path) -> None:
    ok(repo, "dvc", "exp", "run", "-S", "evaluate.batch_size=9")
    assert ok(repo, "git", "status", "--porcelain") != ""
    ok(repo, "git", "checkout", "params.yaml", "dvc.lock", "metrics")
    ok(repo, "dvc", "checkout")
    assert ok(repo, "git", "status", "--porcelain") == ""
    assert "up to date" in ok(repo, "dvc", "status")
