"""The parameters of further defenses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refine.command.parameters import check
from refine.core.errors import UserError
from refine.core.params import ParamsFile
from refine.defending import params
from support import TINY_PARAMS, write_params


def _file(folder: Path, **changes: Any) -> ParamsFile:
    write_params(folder, {**TINY_PARAMS, **changes})
    return ParamsFile(folder / "params.yaml")


def test_none_is_the_default_and_every_name_of_the_room_can_be_listed(tmp_path: Path) -> None:
    assert params.further(_file(tmp_path)) == []
    assert params.further(_file(tmp_path, defenses=["shrinkpad"])) == ["shrinkpad"]


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        ("shrinkpad", r"defenses must be a list such as \[shrinkpad\], not 'shrinkpad'"),
        (None, r"defenses must be a list such as \[shrinkpad\], not None"),
        (["shrinkpda"], "defenses: 'shrinkpda' is not known, did you mean 'shrinkpad'"),
        ([["shrinkpad"]], r"defenses: \"\['shrinkpad'\]\" is not known"),
        (["refine"], "defenses: refine has a stage of its own and is always there; remove it"),
        (["shrinkpad", "shrinkpad"], "defenses: shrinkpad is listed twice; remove one"),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, listed: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        params.further(_file(tmp_path, defenses=listed))


def test_settings_have_published_values_where_none_are_given(tmp_path: Path) -> None:
    assert params.settings(_file(tmp_path), "shrinkpad").model_dump()["draws"] == 1
    file = _file(tmp_path, defense_settings={"shrinkpad": {"draws": 4}})
    assert params.settings(file, "shrinkpad").model_dump()["draws"] == 4


def test_settings_are_checked_also_where_the_defense_is_not_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"defense_settings.shrinkpad: 'padd' is not known, did you mean 'pad'\?"):
        check(_file(tmp_path, defense_settings={"shrinkpad": {"padd": 4}}).path)
    with pytest.raises(UserError, match="defense_settings: 'shrink' is not known"):
        check(_file(tmp_path, defense_settings={"shrink": {}}).path)


@pytest.mark.parametrize("data", [{"seed": 1, "labeled": 0}, {"seed": 1, "unlabeled": 1.5}, {"labeled": 0.1}])
def test_what_a_defender_is_given_is_a_share(tmp_path: Path, data: dict[str, float]) -> None:
    with pytest.raises(UserError, match="defense_data"):
        check(_file(tmp_path, defense_data=data).path)
