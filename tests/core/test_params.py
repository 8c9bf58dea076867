"""A parameters file is read as DVC reads it, and what is not understood is refused by name."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from refine.backdoor.params import TrainBackdoorParams
from refine.core.errors import UserError
from refine.core.params import Number, ParamsFile, Section, Seed, unknown
from refine.defenses.refine.training.params import TrainRefineParams
from refine.download.params import DownloadParams


class Inner(Section):
    """A nested mapping."""

    depth: Number = 1.0


class Sample(Section):
    """A section with one field of each kind."""

    whole: int = 1
    number: Number = 1.0
    flag: bool = False
    text: str = ""
    inner: Inner = Inner()
    several: list[Number] = Field(default=[1.0])


def file(folder: Path, text: str) -> ParamsFile:
    """A parameters file of this text."""
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return ParamsFile(path)


def read(folder: Path, text: str) -> Sample:
    """The section evaluate, as a `Sample`, of a file that holds these lines in it."""
    lines = "\n".join(f"  {line}" for line in text.splitlines())
    return file(folder, f"evaluate:\n{lines}\n").section("evaluate", Sample)


def refusal(folder: Path, text: str) -> str:
    """The sentence, less the file's path, with which these lines are refused."""
    with pytest.raises(UserError) as refused:
        read(folder, text)
    return str(refused.value).removeprefix(f"{folder}/params.yaml: ")


def ours(folder: Path, text: str) -> Any:
    """What our loader makes of a scalar."""
    return file(folder, f"evaluate: {{k: {text}}}").content["evaluate"]["k"]


def dvcs(text: str) -> Any:
    """What DVC's loader makes of it."""
    return YAML(typ="safe", pure=True).load(f"evaluate: {{k: {text}}}")["evaluate"]["k"]


def alike(one: Any, other: Any) -> bool:
    """Equal in value and in type, NaN to NaN."""
    return repr(one) == repr(other)


# -- one reading of YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("false", False),
        ("tRUE", "tRUE"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e+1", -5.0),
        ("+3", 3),
        ("'1e-3'", "1e-3"),
        ("~", None),
        ("null", None),
        ("nULL", "nULL"),
        ("-.inf", -math.inf),
        (".nan", math.nan),
        ("1.5.2", "1.5.2"),
        ("1e", "1e"),
        ("0o9", "0o9"),
    ],
)
def test_scalars_are_read_by_the_rules_of_yaml_1_2_as_dvc_does(tmp_path: Path, text: str, value: object) -> None:
    assert alike(ours(tmp_path, text), value)
    assert alike(dvcs(text), value)


PLAIN = st.one_of(
    st.text("0123456789.eE+-xoainfNtruTRUFlsy~", min_size=1, max_size=7),
    st.integers().map(str),
    st.floats().map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: f"{value:.3e}"),
)


@settings(max_examples=400, deadline=None)
@given(PLAIN)
def test_any_plain_scalar_means_to_us_what_it_means_to_dvc(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    assume(not re.fullmatch(r"[-+]0[xo].*|[-+]?\.[0-9]+[eE][0-9]+", text))  # the next two tests
    try:
        expected = dvcs(text)
    except (YAMLError, ValueError):
        assume(False)
    assert alike(ours(tmp_path_factory.getbasetemp(), text), expected)


@pytest.mark.parametrize("text", ["1_000", "0b11", "-0x1", "2001-01-01"])
def test_what_dvcs_reader_adds_to_yaml_is_a_string_to_us_and_refused_as_a_number(tmp_path: Path, text: str) -> None:
    assert ours(tmp_path, text) == text
    assert refusal(tmp_path, f"whole: {text}") == f"evaluate.whole: input should be a valid integer, not {text!r}"


def test_a_float_without_digits_before_its_point_and_sign_after_its_e_is_a_string_to_dvc_alone(tmp_path: Path) -> None:
    assert dvcs(".5e1") == ".5e1"
    assert ours(tmp_path, ".5e1") == 5.0
    assert read(tmp_path, "number: .5e1") == read(tmp_path, "number: '.5e1'")


def test_anchors_and_merged_mappings_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    text = "train_backdoor: &base\n  a: 1\n  b: [1, 2]\ntrain_refine:\n  <<: *base\n  a: 3\n"
    assert file(tmp_path, text).content == YAML(typ="safe", pure=True).load(text)


# -- what is refused


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml is missing; restore it with `git checkout "):
        ParamsFile(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["", "- 1\n", "word\n"])
def test_a_file_without_sections_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="does not hold a mapping of sections"):
        file(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "evaluate: {",
        "evaluate:\n\tbatch: 1\n",
        "evaluate: *nowhere\n",
        "evaluate: !!python/name:os.system\n",
        "? [a, b]\n: 1\n",
        "evaluate: !!int many\n",
        f"evaluate: {'9' * 5000}\n",
    ],
)
def test_invalid_yaml_is_refused_with_the_name_of_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"params\.yaml cannot be read as YAML: "):
        file(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"evaluate: \xff\n")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        ParamsFile(tmp_path / "params.yaml")


def test_no_tag_runs_code(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        file(tmp_path, f"evaluate: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']\n")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_section_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        file(tmp_path, "train_backdor: {}\n")
    assert str(refused.value) == (
        f"{tmp_path}/params.yaml: section 'train_backdor' is not known, did you mean 'train_backdoor'?"
    )


def test_an_unknown_section_near_to_none_lists_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose from attacks, defense_data, defense_settings, defenses, download, "):
        file(tmp_path, "zzz: {}\n")


@pytest.mark.parametrize("text", ["evaluate: {}\nevaluate: {}\n", "evaluate:\n  whole: 1\n  flag: true\n  whole: 1\n"])
def test_a_repeated_key_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    key = text.rstrip().splitlines()[-1].strip().partition(":")[0]
    message = rf"params\.yaml cannot be read as YAML: the key '{key}' stands twice in line {len(text.splitlines())}$"
    with pytest.raises(UserError, match=message):
        file(tmp_path, text)


def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_one(tmp_path: Path) -> None:
    assert refusal(tmp_path, "inner:\n  dept: 1") == "evaluate.inner: 'dept' is not known, did you mean 'depth'?"
    assert refusal(tmp_path, "hole: 1") == "evaluate: 'hole' is not known, did you mean 'whole'?"


def test_an_unknown_key_deep_in_a_real_section_is_refused_with_its_path(tmp_path: Path) -> None:
    text = "train_backdoor: {seed: 1, network: {name: resnet18}, recipe: {optimizer: {lr: 1, momentun: 0.9}}}\n"
    with pytest.raises(UserError) as refused:
        file(tmp_path, text).section("train_backdoor", TrainBackdoorParams)
    assert str(refused.value).endswith(
        "train_backdoor.recipe.optimizer: 'momentun' is not known, did you mean 'momentum'?"
    )


def test_an_unknown_key_near_to_none_lists_the_known_ones(tmp_path: Path) -> None:
    assert refusal(tmp_path, "zzz: 1") == (
        "evaluate: 'zzz' is not known, choose from flag, inner, number, several, text, whole"
    )


def test_a_section_without_settings_says_so() -> None:
    assert unknown("rate", []) == "'rate' is not known, choose from nothing: it takes no settings"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("whole: true", "evaluate.whole: input should be a valid integer, not True"),
        ("whole: 3.0", "evaluate.whole: input should be a valid integer, not 3.0"),
        ("whole: '3'", "evaluate.whole: input should be a valid integer, not '3'"),
        ("whole: 1e3", "evaluate.whole: input should be a valid integer, not 1000.0"),
        ("whole:", "evaluate.whole: input should be a valid integer, not None"),
        ("number: .nan", "evaluate.number: input should be a finite number, not nan"),
        ("number: .inf", "evaluate.number: input should be a finite number, not inf"),
        ("number: 'nan'", "evaluate.number: input should be a valid number, not 'nan'"),
        ("number: '-inf'", "evaluate.number: input should be a valid number, not '-inf'"),
        ("number: '1_000'", "evaluate.number: input should be a valid number, not '1_000'"),
        ("number: '\u0660.\u0661'", "evaluate.number: input should be a valid number, not '\u0660.\u0661'"),
        ("number: ' 1e-3'", "evaluate.number: input should be a valid number, not ' 1e-3'"),
        ("number: '1e999'", "evaluate.number: input should be a finite number, not inf"),
        ("number: true", "evaluate.number: input should be a valid number, not True"),
        ("number: many", "evaluate.number: input should be a valid number, not 'many'"),
        ("number: [1]", "evaluate.number: input should be a valid number, not [1]"),
        ("flag: yes", "evaluate.flag: input should be a valid boolean, not 'yes'"),
        ("flag: 1", "evaluate.flag: input should be a valid boolean, not 1"),
        ("text: 1", "evaluate.text: input should be a valid string, not 1"),
        ("several: [1, two]", "evaluate.several.1: input should be a valid number, not 'two'"),
        ("inner: {depth: deep}", "evaluate.inner.depth: input should be a valid number, not 'deep'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_path(tmp_path: Path, line: str, sentence: str) -> None:
    assert refusal(tmp_path, line) == sentence


def test_the_first_of_several_errors_is_reported_and_the_others_are_counted(tmp_path: Path) -> None:
    message = refusal(tmp_path, "whole: x\nnumber: y\nflag: z")
    assert message == "evaluate.whole: input should be a valid integer, not 'x' (and 2 more)"


@pytest.mark.parametrize("text", ["5", "word", "[1]", "true"])
def test_a_section_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: evaluate: input should be a valid dictionary"):
        file(tmp_path, f"evaluate: {text}\n").section("evaluate", Sample)


def test_a_missing_section_is_named_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate is missing; write `evaluate: \{\}` there to take its defaults"):
        file(tmp_path, "download: {}\n").section("evaluate", Sample)
    with pytest.raises(UserError, match=r"attacks\.blended is missing; write `blended: \{\}` there"):
        file(tmp_path, "attacks: {none: {}}\n").section("attacks.blended", Sample)


def test_a_missing_value_without_a_default_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: download\.source: [Ff]ield required"):
        file(tmp_path, "download: {}\n").section("download", DownloadParams)


# -- what is accepted


@pytest.mark.parametrize("text", ["'1e-3'", '"0.001"', "1e-3", "0.001", "1.0e-03"])
def test_a_number_may_be_spelt_in_any_of_these_ways(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"number: {text}").number == 0.001


def test_a_whole_number_serves_as_a_number(tmp_path: Path) -> None:
    value = read(tmp_path, "number: 3").number
    assert value == 3.0


def test_an_empty_section_takes_its_defaults(tmp_path: Path) -> None:
    assert file(tmp_path, "evaluate:\n").section("evaluate", Sample) == Sample()
    assert file(tmp_path, "evaluate: {}\n").section("evaluate", Sample) == Sample()
    assert read(tmp_path, "inner:").inner == Inner()


def test_a_component_that_is_not_named_has_its_defaults(tmp_path: Path) -> None:
    read_in = file(tmp_path, "attacks: {sample: {whole: 2}, empty: }\n")
    assert read_in.component("attacks", "sample", Sample) == Sample(whole=2)
    assert read_in.component("attacks", "empty", Sample) == read_in.component("attacks", "another", Sample) == Sample()


def test_a_component_is_refused_as_a_section_is(tmp_path: Path) -> None:
    read_in = file(tmp_path, "attacks: {sample: {hole: 2}}\n")
    with pytest.raises(UserError, match=r"attacks\.sample: 'hole' is not known, did you mean 'whole'\?"):
        read_in.component("attacks", "sample", Sample)
    with pytest.raises(UserError, match=r"attacks\.another\.seed: [Ff]ield required"):
        read_in.component("attacks", "another", Seeded)
    with pytest.raises(UserError, match=r"sources is missing; write `sources: \{\}` there"):
        read_in.component("sources", "sample", Sample)


def test_a_section_cannot_be_changed_after_reading(tmp_path: Path) -> None:
    sample = read(tmp_path, "whole: 2")
    with pytest.raises(ValueError, match="frozen"):
        sample.whole = 3  # type: ignore[misc]


def test_one_wrong_section_does_not_stop_the_reading_of_another(tmp_path: Path) -> None:
    read_in = file(tmp_path, "download: {source: mnist5k}\nevaluate: {nonsense: 1}\n")
    assert read_in.section("download", DownloadParams).source == "mnist5k"


class Seeded(Section):
    """A section with a seed."""

    seed: Seed


@pytest.mark.parametrize(("seed", "accepted"), [(0, True), (2**32 - 1, True), (2**32, False), (-1, False)])
def test_seeds_fit_in_32_bits(tmp_path: Path, seed: int, accepted: bool) -> None:
    read_in = file(tmp_path, f"evaluate: {{seed: {seed}}}\n")
    if accepted:
        assert read_in.section("evaluate", Seeded).seed == seed
    else:
        with pytest.raises(UserError, match=rf"evaluate\.seed: input should be .*, not {seed}$"):
            read_in.section("evaluate", Seeded)


# -- recipes


UNUSED = {"warmup": 0.2, "period": 100, "floor": 0.0, "rise": 0.0, "start": 0.0}
"""Settings of other schedules."""


def test_recipe_paper_is_the_published_training_of_the_classifier(tmp_path: Path) -> None:
    text = "train_backdoor: {seed: 1, network: {name: resnet18}, recipe: paper}\n"
    params = file(tmp_path, text).section("train_backdoor", TrainBackdoorParams)
    assert params.network.width == 64
    assert params.recipe.model_dump() == {
        "epochs": 150,
        "batch_size": 128,
        "drop_last": False,
        "precision": "fp32",
        "compile": False,
        "shuffle_buffer": 65536,
        "average": 0.0,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0005},
        "schedule": {"name": "step", "milestones": [2 / 3, 13 / 15], "factor": 0.1, **UNUSED},
        "augment": {"crop_scale": 1.0, "shift": 0, "flip": 0.5, "jitter": None, "grayscale": 0.0, "cutout": 0},
        "label_smoothing": 0.0,
    }


@pytest.mark.parametrize(("written", "epochs"), [("", None), ("null", None), ("{}", 8), ("{epochs: 2}", 2)])
def test_the_encoder_is_trained_first_where_there_is_a_mapping(
    tmp_path: Path, written: str, epochs: int | None
) -> None:
    text = f"train_refine:\n  seed: 1\n  transform: {{name: unet}}\n  recipe: paper\n  encoder: {written}\n"
    params = file(tmp_path, text).section("train_refine", TrainRefineParams)
    assert (params.encoder and params.encoder.epochs) == epochs


def test_recipe_paper_is_the_published_training_of_the_defense(tmp_path: Path) -> None:
    params = file(tmp_path, "train_refine: {seed: 1, transform: {name: unet}, recipe: paper}\n").section(
        "train_refine", TrainRefineParams
    )
    assert params.permutation_seed == 666
    assert params.transform.model_dump() == {"name": "unet", "first_channels": 64}
    assert params.input_space == "normalized_clamp01"
    assert params.initial_output == 0
    assert params.initial_contrast == 1
    assert params.loss.model_dump() == {"utility": "binary", "supcon_weight": 0.1, "supcon_temperature": 0.07}
    assert params.recipe.model_dump() == {
        "epochs": 150,
        "min_steps": 0,
        "batch_size": 256,
        "drop_last": True,
        "precision": "fp32",
        "compile": False,
        "shuffle_buffer": 65536,
        "average": 0.0,
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0005},
        "schedule": {"name": "step", "milestones": [2 / 3, 13 / 15], "factor": 0.8, **UNUSED},
        "augment": {"crop_scale": 0.8, "shift": 0, "flip": 0.5, "jitter": None, "grayscale": 0.2, "cutout": 0},
    }


def test_the_papers_milestones_are_its_epochs_100_and_130(tmp_path: Path) -> None:
    params = file(tmp_path, "train_refine: {seed: 1, transform: {name: unet}, recipe: paper}\n").section(
        "train_refine", TrainRefineParams
    )
    assert [round(share * params.recipe.epochs) for share in params.recipe.schedule.milestones] == [100, 130]


def test_a_recipe_that_names_some_values_keeps_the_papers_others(tmp_path: Path) -> None:
    text = "train_refine: {seed: 1, transform: {name: unet}, recipe: {epochs: 3, augment: {shift: 2}}}\n"
    recipe = file(tmp_path, text).section("train_refine", TrainRefineParams).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.schedule.factor) == (3, 256, 0.8)
    assert (recipe.augment.shift, recipe.augment.crop_scale, recipe.augment.flip) == (2, 1.0, 0.0)  # a group is whole


@pytest.mark.parametrize("recipe", ["papers", "[1]", "3"])
def test_paper_is_the_only_name_of_a_recipe(tmp_path: Path, recipe: str) -> None:
    text = f"train_refine: {{seed: 1, transform: {{name: unet}}, recipe: {recipe}}}\n"
    with pytest.raises(UserError, match=r"train_refine\.recipe: input should be a valid dictionary"):
        file(tmp_path, text).section("train_refine", TrainRefineParams)


@pytest.mark.parametrize("optimizer", ["{name: adamw, lr: 1, nesterov: true}", "{lr: 1, momentum: 0, nesterov: true}"])
def test_nesterov_without_sgd_and_momentum_is_refused(tmp_path: Path, optimizer: str) -> None:
    text = f"train_refine: {{seed: 1, transform: {{name: unet}}, recipe: {{optimizer: {optimizer}}}}}\n"
    with pytest.raises(UserError, match=r"train_refine\.recipe: optimizer\.nesterov needs optimizer\.name sgd"):
        file(tmp_path, text).section("train_refine", TrainRefineParams)


def test_a_shuffle_buffer_that_holds_no_batch_is_refused(tmp_path: Path) -> None:
    text = "train_refine: {seed: 1, transform: {name: unet}, recipe: {batch_size: 64, shuffle_buffer: 63}}\n"
    with pytest.raises(UserError, match=r"train_refine\.recipe: shuffle_buffer has to hold a batch"):
        file(tmp_path, text).section("train_refine", TrainRefineParams)


@pytest.mark.parametrize("average", ["1", "-0.1", "yes"])
def test_an_average_that_never_moves_or_grows_is_refused(tmp_path: Path, average: str) -> None:
    text = f"train_refine: {{seed: 1, transform: {{name: unet}}, recipe: {{average: {average}}}}}\n"
    with pytest.raises(UserError, match=r"train_refine\.recipe\.average: "):
        file(tmp_path, text).section("train_refine", TrainRefineParams)


@pytest.mark.parametrize(
    ("written", "steps", "epochs"),
    [("", 7, 150), (", min_steps: 1000", 7, 150), (", min_steps: 2101", 14, 151), (", min_steps: 1000", 1, 1000)],
)
def test_a_defender_s_recipe_lasts_for_the_steps_that_it_asks_for(
    tmp_path: Path, written: str, steps: int, epochs: int
) -> None:
    text = f"train_refine: {{seed: 1, transform: {{name: unet}}, recipe: {{epochs: 150{written}}}}}\n"
    recipe = file(tmp_path, text).section("train_refine", TrainRefineParams).recipe
    assert recipe.lasting(steps).epochs == epochs
    assert recipe.lasting(steps).lasting(steps) == recipe.lasting(steps)
