"""Clones of the last commit, in which lists of runs are computed."""

from __future__ import annotations

from pathlib import Path

from refine_lab.lists import clones
from repositories import ok


def test_two_lists_at_once_have_a_clone_each_and_the_next_takes_the_first_again(preset: Path) -> None:
    with clones.shared(preset) as first, clones.shared(preset) as second:
        assert [first.folder.name, second.folder.name] == ["1", "2"]
    (preset / "README.md").write_text("newer\n", encoding="utf-8")
    ok(preset, "git", "commit", "-qam", "newer")
    left = [preset / ".rows/1" / name for name in (".git/index.lock", ".dvc/tmp/rwlock")]  # as a kill may leave them
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"cut', encoding="utf-8")
    with clones.shared(preset) as again:
        assert again.folder == first.folder
        assert [path for path in left if path.exists()] == []
        assert (again.folder / "README.md").read_text(encoding="utf-8") == "newer\n"


def test_the_checkpoints_of_a_list_are_found_in_every_clone(preset: Path) -> None:
    with clones.shared(preset) as first, clones.shared(preset) as second:
        (first.folder / ".scratch/train-refine-0").mkdir()
        assert (second.folder / ".scratch/train-refine-0").is_dir()
        assert (preset / ".scratch/train-refine-0").is_dir()
        with clones.alone(preset, "run", 0) as own:
            assert not (own.folder / ".scratch/train-refine-0").exists()
