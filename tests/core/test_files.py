"""Files and folders appear whole or not at all; JSON has one spelling; paths stay inside their folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refine.core.errors import UserError
from refine.core.files import inside, new_file, new_folder, read_json, sha256_of, write_durably, write_json


class KilledError(Exception):
    """What a test throws in the middle of writing."""


def entries(folder: Path) -> list[str]:
    """Everything in a folder, below it too, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def half_a_folder(target: Path) -> None:
    """Writes one file and fails."""
    with new_folder(target) as partial:
        (partial / "half").write_text("half")
        raise KilledError


def half_a_file(target: Path) -> None:
    """Writes some bytes and fails."""
    with new_file(target) as partial:
        partial.write_text("half")
        raise KilledError


def test_a_folder_appears_with_everything_that_was_put_in(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out") as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "a").write_text("a")
        assert not (tmp_path / "deep" / "out").exists()
    assert entries(tmp_path) == ["deep", "deep/out", "deep/out/sub", "deep/out/sub/a"]


def test_a_folder_takes_the_place_of_the_old_one_and_nothing_of_that_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with new_folder(tmp_path / "out") as partial:
        (partial / "new").touch()
        assert entries(tmp_path / "out") == ["old"]
    assert entries(tmp_path) == ["out", "out/new"]


def test_a_folder_replaces_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with new_folder(tmp_path / "out") as partial:
        (partial / "new").touch()
    assert not (tmp_path / "out").is_symlink()
    assert entries(tmp_path) == ["elsewhere", "elsewhere/kept", "out", "out/new"]


def test_a_folder_that_failed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        half_a_folder(tmp_path / "out")
    assert entries(tmp_path) == []


def test_a_folder_that_failed_leaves_the_old_one_untouched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(KilledError):
        half_a_folder(tmp_path / "out")
    assert entries(tmp_path) == ["out", "out/old"]
    assert (tmp_path / "out" / "old").read_text() == "old"


@pytest.mark.parametrize("left_as", ["folder", "file", "link"])
def test_what_a_killed_run_left_is_thrown_away(tmp_path: Path, left_as: str) -> None:
    leftover = tmp_path / ".out.partial"
    (tmp_path / "kept").mkdir()
    if left_as == "folder":
        leftover.mkdir()
        (leftover / "stale").touch()
    elif left_as == "file":
        leftover.touch()
    else:
        leftover.symlink_to(tmp_path / "kept")
    with new_folder(tmp_path / "out") as partial:
        assert entries(partial) == []
    assert entries(tmp_path) == ["kept", "out"]


def test_two_folders_appear_only_when_both_are_whole(tmp_path: Path) -> None:
    def both() -> None:
        with new_folder(tmp_path / "test") as test, new_folder(tmp_path / "train") as train:
            (test / "a").touch()
            (train / "a").touch()
            raise KilledError

    with pytest.raises(KilledError):
        both()
    assert entries(tmp_path) == []


def test_a_file_appears_under_its_name_only_when_the_block_ends(tmp_path: Path) -> None:
    with new_file(tmp_path / "deep" / "out.txt") as partial:
        partial.write_text("whole")
        assert not (tmp_path / "deep" / "out.txt").exists()
    assert entries(tmp_path) == ["deep", "deep/out.txt"]
    assert (tmp_path / "deep" / "out.txt").read_text() == "whole"


def test_a_file_that_failed_leaves_the_old_one_untouched(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("old")
    with pytest.raises(KilledError):
        half_a_file(tmp_path / "out.txt")
    assert entries(tmp_path) == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "old"


def test_a_file_that_failed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        half_a_file(tmp_path / "out.txt")
    assert entries(tmp_path) == []


def test_a_durable_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for content in (b"old", b"", b"new" * 1000):
        write_durably(tmp_path / "out", content)
        assert (tmp_path / "out").read_bytes() == content
        assert entries(tmp_path) == ["out"]


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        assert not (tmp_path / "out").exists()
        raise KilledError

    monkeypatch.setattr("refine.core.files.os.fsync", full)
    with pytest.raises(KilledError):
        write_durably(tmp_path / "out", b"new")
    assert not (tmp_path / "out").exists()


def test_json_has_sorted_keys_and_one_newline_at_the_end(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": {"d": "é", "c": [1.5]}})
    expected = '{\n  "a": {\n    "c": [\n      1.5\n    ],\n    "d": "é"\n  },\n  "b": 1\n}\n'
    assert (tmp_path / "a.json").read_bytes() == expected.encode("utf-8")


def test_json_does_not_depend_on_the_order_in_which_keys_were_set(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1, "y": 2})
    write_json(tmp_path / "b.json", {"y": 2, "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_refuses_numbers_that_are_not_json_and_keeps_the_old_file(tmp_path: Path, number: float) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"loss": number})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert entries(tmp_path) == ["a.json"]


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    content = {"text": "naïve ✓", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", "do something") == content


def test_missing_json_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json is missing; do something$"):
        read_json(tmp_path / "a.json", "do something")


@pytest.mark.parametrize("content", [b'{"a": 1', b"\xff\xfe", b""])
def test_damaged_json_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON .*; do something$"):
        read_json(tmp_path / "a.json", "do something")


def test_json_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(UserError, match=r"a\.json does not hold a JSON object; do something$"):
        read_json(tmp_path / "a.json", "do something")


@given(st.binary(max_size=200), st.integers(0, 3))
def test_the_sum_of_a_file_is_that_of_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, more: int
) -> None:
    content = data + bytes(more << 19)  # also files longer than one piece of reading
    path = tmp_path_factory.getbasetemp() / "summed"
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an own folder, the working folder of the test; a file and a folder lie outside."""
    (tmp_path / "own" / "images").mkdir(parents=True)
    (tmp_path / "own-too").mkdir()
    (tmp_path / "secret").touch()
    monkeypatch.chdir(tmp_path)
    return Path("own")


@pytest.mark.parametrize("path", ["own", "own/images", "own/not-yet", "own/images/../images", "./own/images"])
def test_a_path_inside_is_given_back(own: Path, path: str) -> None:
    assert inside(own, path) == Path(path)


@pytest.mark.parametrize("path", [".", "..", "secret", "own/../secret", "own-too", "own/images/../../own-too", "/"])
def test_a_path_outside_is_refused_by_name(own: Path, path: str) -> None:
    with pytest.raises(UserError) as refused:
        inside(own, path)
    assert str(refused.value).startswith(f"{path} lies outside own")


def test_an_absolute_path_inside_is_accepted(own: Path) -> None:
    assert inside(own, str(own.resolve() / "images")) == own.resolve() / "images"


@pytest.mark.parametrize("target", ["own-too", "own/images", "nowhere"])
@pytest.mark.parametrize("path", ["own/link", "own/link/below", "own/images/../link"])
def test_a_link_behind_which_dvc_sees_nothing_is_refused(own: Path, target: str, path: str) -> None:
    (own / "link").symlink_to(Path(target).absolute())
    with pytest.raises(UserError, match=rf"^{path} leads through a link, behind which DVC cannot see it change; copy"):
        inside(own, path)


@pytest.mark.parametrize("target", ["secret", "own/images/file"])
def test_a_link_to_a_file_is_accepted_because_dvc_follows_it(own: Path, target: str) -> None:
    (own / "images/file").touch()
    (own / "link").symlink_to(Path(target).absolute())
    assert inside(own, "own/link") == Path("own/link")


def test_the_own_folder_may_be_a_link_itself(own: Path) -> None:
    own.rename("elsewhere")
    own.symlink_to("elsewhere")
    assert inside(own, "own/images") == Path("own/images")


def test_a_way_back_out_of_a_link_is_refused(own: Path) -> None:
    (own / "link").symlink_to(Path("own-too").absolute())
    with pytest.raises(UserError, match="leads through a link"):
        inside(own, "own/link/../images")


@pytest.mark.parametrize(
    "path", ["own/\0", "own/\udcff", "own/" + chr(0xD800), "own/" + 256 * "x", "own" + 1000 * "/x"]
)
def test_an_invalid_file_name_is_refused(own: Path, path: str) -> None:
    with pytest.raises(UserError, match="is not a path; name a place in own"):
        inside(own, path)


def test_a_link_to_itself_is_left_to_be_missing(own: Path) -> None:
    (own / "loop").symlink_to("loop")
    assert inside(own, "own/loop") == Path("own/loop")
