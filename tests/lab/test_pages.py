"""Pages that are made from recorded runs and from the files of attacks and defenses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from refine.core.errors import UserError
from refine.core.registry import ATTACKS, DEFENSES, component, names
from refine_lab.lists.plan import checked
from refine_lab.lists.rows import Row, Rows, read_rows
from refine_lab.pages import gallery, tables
from refine_lab.pages.docstrings import described
from refine_lab.pages.fill import fill, filled
from support import PROJECT

LISTS = sorted((PROJECT / "experiments").glob("*.yaml"))
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_recorded_runs_say(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack or a defense that is new, and so in no list of runs, may still be missing from it."""
    text = page.read_text(encoding="utf-8")
    for module in (tables, gallery):
        monkeypatch.setattr(module, "names", lambda room: [name for name in names(room) if f"`{name}`" in text])
    assert filled(page, PROJECT) == text, f"type `refine fill {page.relative_to(PROJECT)}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_a_shipped_list_is_right_and_names_each_run_once(path: Path) -> None:
    listed = checked(read_rows(path), PROJECT)
    assert len({str(name) for _, name, _ in listed}) == len(listed)


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in (ATTACKS, DEFENSES) for name in names(room)])
def test_every_setting_says_what_it_means(room: str, name: str) -> None:
    params = getattr(component(room, name, "a test"), "Params", None)
    fields = params.model_fields if params else {}
    assert {field for field in fields if not described(params).get(field)} == set()


def test_a_result_says_what_it_was_computed_on_or_that_it_came_from_the_cache(tmp_path: Path) -> None:
    listed = Rows(preset="quick", rows=[Row(attack="badnets")])
    shutil.copytree(PROJECT / "presets", tmp_path / "presets")
    folder = tmp_path / "metrics/runs/mnist5k-quick-badnets-refine-default-s1"
    for computed, expected in ((True, "2 threads"), (False, "from the cache")):
        record = json.loads((PROJECT / folder.relative_to(tmp_path) / "run.json").read_text(encoding="utf-8"))
        record["runtime"] = record["runtime"] if computed else {}
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PROJECT / folder.relative_to(tmp_path), folder)
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
        assert expected in tables.results(listed, tmp_path)


def test_only_the_marked_places_of_a_page_change(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- made: attacks experiments/attacks.yaml -->\nold\n<!-- end -->\nafter\n", encoding="utf-8"
    )
    text = filled(page, PROJECT)
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert "`badnets`" in text
    page.write_text(text, encoding="utf-8")
    assert filled(page, PROJECT) == text


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- made: atacks experiments/attacks.yaml -->\n<!-- end -->\n", encoding="utf-8")
    with pytest.raises(UserError, match="'atacks', which is not known"):
        filled(page, PROJECT)
    with pytest.raises(UserError, match="is missing"):
        filled(tmp_path / "other.md", PROJECT)


def test_where_one_page_cannot_be_filled_none_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- made: attacks experiments/attacks.yaml -->\n<!-- end -->\n", encoding="utf-8")
    with pytest.raises(UserError, match="is missing"):
        fill([page, tmp_path / "other.md"], PROJECT)
    assert "badnets" not in page.read_text(encoding="utf-8")
    fill([page], PROJECT)
    assert "badnets" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["attacks", "defenses", "results", "spread", "gallery", "defense-gallery"])
def test_every_kind_of_table_can_be_made_of_a_list(kind: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"<!-- made: {kind} experiments/spread.yaml -->\n<!-- end -->\n", encoding="utf-8")
    assert len(filled(page, PROJECT).splitlines()) > 5
