"""What the cache promises, each promise kept by the real `dvc` in a real repository."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from gates import Gate, group, hook_into
from refine.shards.reading.folder import read as read_manifest
from refine.shards.reading.held_out import held_out
from refine.shards.reading.reader import read_split
from refine_lab.recording.defender import defender
from repositories import ok, ran
from support import environment, run, write_params


def _edit(project: Path, **sections: dict[str, object]) -> None:
    """Changes entries of `params.yaml`, section by section."""
    content = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    for section, changes in sections.items():
        content[section].update(changes)
    write_params(project, content)


def test_a_second_repro_runs_nothing(repo: Path) -> None:
    assert ran(repo) == []
    assert "up to date" in ok(repo, "dvc", "status")


def test_what_no_stage_uses_runs_nothing(repo: Path) -> None:
    (repo / "README.md").write_text("another text\n", encoding="utf-8")
    (repo / "docs").mkdir(exist_ok=True)
    (repo / "docs/new.md").write_text("new\n", encoding="utf-8")
    (repo / "tests").mkdir()
    (repo / "tests/test_new.py").write_text("def test_new(): ...\n", encoding="utf-8")
    version = (repo / "pyproject.toml").read_text(encoding="utf-8")
    (repo / "pyproject.toml").write_text(version.replace('version = "', 'version = "9'), encoding="utf-8")
    for room, chosen_not in (("attacks", "none"), ("sources", "cifar10")):
        folder = repo / "src/refine" / room
        (folder / "brand_new.py").write_text("class Params: ...\n", encoding="utf-8")
        with (folder / f"{chosen_not}.py").open("a", encoding="utf-8") as file:
            file.write("\n# edited\n")
    assert "up to date" in ok(repo, "dvc", "status")


def test_settings_of_an_attack_that_is_not_chosen_train_nothing(repo: Path) -> None:
    _edit(repo, attacks={"blended": {"alpha": 0.3}})
    assert ran(repo) == ["poison-dataset"]


def test_a_new_attack_needs_no_entry_in_the_parameters(repo: Path) -> None:
    """DVC refuses a tracked key that is missing, so the settings are tracked as a whole."""
    attacks = repo / "src/refine/attacks"
    (attacks / "frame.py").write_text((attacks / "badnets.py").read_text(encoding="utf-8"), encoding="utf-8")
    _edit(repo, poison_dataset={"attack": {"name": "frame"}})
    assert ran(repo)[0] == "poison-dataset"
    saved = json.loads((repo / "data/poisoned/attack/attack.json").read_text(encoding="utf-8"))
    assert saved["attack"] == "frame"


def test_a_new_architecture_concerns_poison_dataset_alone_as_an_attack_may_train_it(repo: Path) -> None:
    new = repo / "src/refine/architectures/brand_new/network.py"
    new.parent.mkdir()
    new.write_text("def build(): ...\n", encoding="utf-8")
    assert set(json.loads(ok(repo, "dvc", "status", "--json"))) == {"poison-dataset"}


def test_a_new_setting_of_one_stage_concerns_that_stage_alone(repo: Path) -> None:
    params = repo / "src/refine/evaluation/params.py"
    params.write_text(params.read_text(encoding="utf-8") + "\n    more: int = 1\n", encoding="utf-8")
    _edit(repo, evaluate={"more": 2})
    changed = json.loads(ok(repo, "dvc", "status", "--json"))
    assert set(changed) == {"evaluate"}


def test_the_chosen_attack_s_own_file_concerns_poison_dataset(repo: Path) -> None:
    with (repo / "src/refine/attacks/badnets.py").open("a", encoding="utf-8") as file:
        file.write("\n# edited\n")
    assert set(json.loads(ok(repo, "dvc", "status", "--json"))) == {"poison-dataset"}


def test_an_attack_that_writes_the_same_bytes_trains_nothing(repo: Path) -> None:
    with (repo / "src/refine/attacks/badnets.py").open("a", encoding="utf-8") as file:
        file.write("\n# a comment\n")
    assert ran(repo) == ["poison-dataset"]


def test_an_attack_parameter_runs_what_follows_from_changed_outputs(repo: Path) -> None:
    _edit(repo, attacks={"badnets": {"rate": 0.5}})
    assert ran(repo) == ["poison-dataset", "train-backdoor", "train-refine", "evaluate"]


def test_changing_only_the_attack_s_name_is_valid_and_benign_training_has_no_trigger_figures(repo: Path) -> None:
    ok(repo, "dvc", "exp", "run", "-S", "poison_dataset.attack.name=none", "-S", "train_refine.recipe.epochs=1")
    for system in ("no_defense", "refine"):
        figures = json.loads((repo / f"metrics/{system}.json").read_text(encoding="utf-8"))
        assert set(figures) == {"benign_accuracy", "interval_95"}


def test_one_setting_of_an_attack_can_be_changed_from_the_command_line(repo: Path) -> None:
    ok(repo, "dvc", "exp", "run", "-S", "attacks.badnets.rate=0.25", "poison-dataset")
    ok(repo, "dvc", "exp", "run", "-S", "+attacks.badnets.patch_side=2", "poison-dataset")
    saved = json.loads((repo / "data/poisoned/attack/attack.json").read_text(encoding="utf-8"))
    assert saved["settings"] == {"rate": 0.25, "target": 0, "patch_side": 2}
    assert len(saved["poisoned"]) == 12


def test_branches_are_compared_and_changed_without_training(repo: Path) -> None:
    ok(repo, "git", "checkout", "-qb", "longer")
    _edit(repo, train_refine={"seed": 7})
    assert ran(repo) == ["train-refine", "evaluate"]
    ok(repo, "git", "add", "-A")
    ok(repo, "git", "commit", "-qm", "another seed")
    ok(repo, "git", "checkout", "-q", "main")
    ok(repo, "dvc", "checkout")
    assert "up to date" in ok(repo, "dvc", "status")
    assert ran(repo) == []
    both = json.loads(ok(repo, "dvc", "metrics", "diff", "--all", "--json", "main", "longer"))
    assert set(both) == {"metrics/no_defense.json", "metrics/refine.json"}
    assert "benign_accuracy" in both["metrics/refine.json"]
    ok(repo, "git", "checkout", "-q", "longer")
    ok(repo, "dvc", "checkout")
    assert ran(repo) == []


def test_a_fresh_clone_pulls_and_runs_nothing(repo: Path, tmp_path: Path) -> None:
    ok(repo, "dvc", "remote", "add", "-d", "shared", str(tmp_path / "remote"))
    ok(repo, "git", "commit", "-qam", "a remote")
    ok(repo, "dvc", "push", "-q")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(repo), str(clone)], check=True)
    ok(clone, "dvc", "pull", "-q")
    assert "up to date" in ok(clone, "dvc", "status")
    assert ran(clone) == []


def test_a_colleague_pulls_a_run_that_is_on_no_branch(repo: Path, tmp_path: Path) -> None:
    """Run records travel with `dvc push --run-cache`, their data only with `-A` for all commits."""
    ok(repo, "dvc", "remote", "add", "-d", "shared", str(tmp_path / "remote"))
    _edit(repo, train_refine={"seed": 9})
    assert ran(repo) == ["train-refine", "evaluate"]
    ok(repo, "git", "commit", "-qam", "a remote, and a run")
    ok(repo, "dvc", "push", "-q", "-A", "--run-cache")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(repo), str(clone)], check=True)
    (clone / "dvc.lock").unlink()
    ok(clone, "dvc", "pull", "-q", "-A", "--run-cache", "--allow-missing")
    assert ran(clone) == ["evaluate"], "only the stage whose metrics git tracks may run again"


def test_two_repros_at_once_are_refused_in_a_sentence(repo: Path, tmp_path: Path) -> None:
    _edit(repo, train_refine={"seed": 11})
    hook_into(repo)
    gate = Gate(tmp_path, r"/train-refine-\w+/epoch-000001\.ckpt")
    with group(repo, "dvc", "repro", env=environment(**gate.variables), forks=True) as first:
        with gate.reached(first):
            second = run(repo, "dvc", "repro")
        first.communicate()
        assert first.returncode == 0
    assert second.returncode != 0
    assert re.search(r"is busy|Unable to acquire lock|Another DVC process", second.stdout + second.stderr)
    assert "Traceback" not in second.stderr


def test_images_that_are_held_out_for_the_defender_never_reach_the_attacker(repo: Path) -> None:
    _edit(repo, poison_dataset={"held_out": 0.25})
    assert ran(repo) == ["poison-dataset", "train-backdoor", "train-refine", "evaluate"]
    raw, poisoned = (read_split(repo / folder) for folder in ("data/raw/train", "data/poisoned/train"))
    assert poisoned.keys.tolist() == raw.keys[~held_out(len(raw.keys), 0.25)].tolist()
    own = len(raw.keys) - len(poisoned.keys)
    assert defender(repo, "refine").images == own
    trained = json.loads((repo / "metrics/runtime/train-refine.json").read_text(encoding="utf-8"))
    assert trained["images"] == own


def test_a_defender_s_other_images_concern_no_attacker(repo: Path) -> None:
    content = yaml.safe_load((repo / "params.yaml").read_text(encoding="utf-8"))
    photos = {**content["sources"], "unlabeled": {"side": 16}}
    write_params(repo, {**content, "sources": photos, "other_images": ["unlabeled"]})
    assert ran(repo) == ["download", "download-other@unlabeled", "poison-dataset", "train-refine", "evaluate"]
    assert not read_manifest(repo / "data/poisoned/defender").labeled
    write_params(repo, {**content, "sources": photos})
    assert ran(repo) == ["poison-dataset", "evaluate"], "the training is cached, though data/other/unlabeled is there"


def test_contaminated_images_concern_no_attacker(repo: Path) -> None:
    _edit(repo, poison_dataset={"contaminated": 0.25})
    assert ran(repo) == ["poison-dataset", "train-refine", "evaluate"]
    assert int(read_split(repo / "data/poisoned/defender").flags("cover").sum()) == 12
