"""Pages that are made from recorded runs and from the attacks' own files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from refine.core.errors import UserError
from refine.core.registry import component, names
from refine.reports import fill, tables
from refine.reports.attacks import described
from refine.reports.fill import filled
from refine.reports.lists import Row, Rows, checked, read_rows
from refine.reports.lists import names as names_of
from support import PROJECT

LISTS = sorted((PROJECT / "experiments").glob("*.yaml"))
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
FIGURES = {"benign_accuracy": 0.98, "attack_success_rate": 1.0, "asr_floor": 0.002, "robust_accuracy": 0.75}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_recorded_runs_say(page: Path) -> None:
    assert filled(page, PROJECT) == page.read_text(encoding="utf-8"), f"python -m refine.reports.fill {page}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_a_shipped_list_is_right_and_names_each_run_once(path: Path) -> None:
    listed = read_rows(path)
    told = [str(name) for name in names_of(listed, PROJECT)]
    assert len(set(told)) == len(told) == len(checked(listed, PROJECT))


def test_every_attack_is_in_the_list_of_attacks() -> None:
    assert {row.attack for row in read_rows(PROJECT / "experiments/attacks.yaml").rows} == set(names("refine.attacks"))


@pytest.mark.parametrize("attack", names("refine.attacks"))
def test_every_setting_of_an_attack_says_what_it_means(attack: str) -> None:
    params = component("refine.attacks", attack, "attack").Params
    assert {name for name in params.model_fields if not described(params).get(name)} == set()


def test_what_has_not_run_says_so() -> None:
    assert "not yet run" in tables.attacks(Rows(preset="quick", rows=[Row(attack="badnets", seed=999)]), PROJECT)


def test_a_result_says_what_it_was_computed_on_or_that_it_came_from_the_cache(tmp_path: Path) -> None:
    listed = Rows(preset="quick", rows=[Row(attack="badnets")])
    shutil.copytree(PROJECT / "presets", tmp_path / "presets")
    folder = tmp_path / "metrics/runs/mnist5k-quick-badnets-default-s1"
    for computed, told in ((True, "2 threads"), (False, "from the cache")):
        record = json.loads((PROJECT / folder.relative_to(tmp_path) / "run.json").read_text(encoding="utf-8"))
        record["runtime"] = record["runtime"] if computed else {}
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PROJECT / folder.relative_to(tmp_path), folder)
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
        assert told in tables.results(listed, tmp_path)


def test_what_all_rows_share_is_said_once_above_them() -> None:
    shared = {"download.source": "cifar10", "train_refine.encoder": None}
    listed = Rows(
        preset="cpu",
        rows=[
            Row(attack="badnets", seed=998, changes=shared),
            Row(attack="badnets", seed=999, changes={**shared, "train_refine.remap": False}),
        ],
    )
    above, _, table = tables.results(listed, PROJECT).partition("\n")
    assert above == "Every row departs from `cpu` in `download.source: cifar10`, `train_refine.encoder: null`."
    assert "cifar10" not in table
    assert table.count("`train_refine.remap: false`") == 1


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
        fill.filled(tmp_path / "other.md", PROJECT)
