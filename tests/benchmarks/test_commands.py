"""Each benchmark runs, prints its table, and leaves JSON with machine, settings, every repetition and its figures."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import cluster, defenses, deployed, idle, input_path, memory, scale, step
from benchmarks.common import Timing, interleaved, number, table
from benchmarks.images import SYNTHETIC
from refine.core.errors import UserError
from support import TINY_PARAMS, write_params
from tiny import CPU

Printed = pytest.CaptureFixture[str]


def _told(path: Path, printed: Printed, name: str, repetitions: int = 2) -> dict[str, Any]:
    """The JSON of a benchmark, once what all of them promise was checked."""
    text = path.read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    assert content["benchmark"] == name
    assert {"cpu", "cpu_flags", "cores", "threads", "device", "device_name", "python", "versions"} <= set(
        content["machine"]
    )
    assert content["settings"]["repetitions"] == repetitions
    assert None not in content["settings"].values()
    assert not re.search(r'"(host|hostname|date|time_of_day|started\w*)"', text)
    assert len(printed.readouterr().out.splitlines()) >= 3
    return content


def _timed(told: dict[str, Any], rate: str | None = None, repetitions: int = 2) -> None:
    assert len(told["seconds"]) == repetitions
    assert all(seconds > 0 for seconds in told["seconds"])
    assert min(told["seconds"]) <= told["seconds_median"] <= max(told["seconds"])
    assert rate is None or told[f"{rate}_per_second"] > 0


def test_step(tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "new/step.json"
    names = ["refine-narrow", "backdoor-narrow"]
    options = f"--repetitions 2 --seconds 0 --skip 0 --matrix 64 --batch 4 --profile --out {out} --configurations"
    step.main([*options.split(), *names])
    content = _told(out, capsys, "step")
    assert [(told["configuration"], told["batch_size"]) for told in content["results"]] == [(name, 4) for name in names]
    for told in content["results"]:
        _timed(told["matrix_product"]["fp32"], "flops")
        for way in ("plain", "ours"):
            _timed(told[way], "images")
            assert told[way]["share_of_matrix_product"]["fp32"] > 0
            assert told[way]["steps"] >= 1
        assert told["ratio"] == pytest.approx(told["ours"]["images_per_second"] / told["plain"]["images_per_second"])
        assert 0.3 < sum(told["ours"]["operations"].values()) <= 1
        assert told["precision"] in ("fp32", "bf16")


def test_defenses(tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "defenses.json"
    params = tmp_path / "params.yaml"
    settings = {"dst": {"extractor": {"batch_size": 8}, "head": {"batch_size": 8}}, "d3": {"recipe": {"batch_size": 8}}}
    write_params(
        tmp_path,
        {**TINY_PARAMS, "splits": ["sd"], "defenses": ["clp", "d3", "dst", "shrinkpad"], "defense_settings": settings},
    )
    defenses.main(f"--repetitions 2 --images 40 --epochs 1 --params {params} --out {out}".split())
    content = _told(out, capsys, "defenses")
    assert [told["defense"] for told in content["results"]] == ["clp", "d3", "dst"]  # nothing is trained in ShrinkPad
    for told in content["results"]:
        assert told["seconds"] > 0
        assert 0 < told["products"] + told["other_arithmetic"] <= 1.01
        assert told["products"] + told["other_arithmetic"] + told["rest"] == pytest.approx(1, abs=0.01)
    assert all(told["products"] > 0 for told in content["results"][1:])


def test_a_step_of_the_paper_costs_what_the_specification_says() -> None:
    """Spec 1.2: 624.8 M multiply-accumulates of the U-Net and 555.4 M of the classifier, each three times."""
    known = step.configurations("cpu")
    assert known["refine"].flops_per_image == pytest.approx(2 * 3 * (624.8e6 + 555.4e6), rel=1e-3)
    assert known["backdoor"].flops_per_image == pytest.approx(2 * 3 * 555.4e6, rel=1e-3)
    sizes = [known[name].params.recipe.batch_size for name in ("refine", "backdoor")]
    assert sizes == [64, 128]
    assert step.configurations("cuda")["refine"].params.recipe.batch_size == 256


def test_input_path(tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "input_path.json"
    options = f"--repetitions 2 --images 130 --epochs 2 --workers 0 --buffer 100 --out {out}"
    input_path.main(options.split())
    content = _told(out, capsys, "input_path")
    assert content["images"] == SYNTHETIC
    assert set(content["results"]["rate"]) == {"flip", "crop+flip+gray"}
    for told in content["results"]["rate"].values():
        for way in input_path.WAYS:
            _timed(told[way], "images")
        assert all(told["ratio_to_plain"][way] > 0 for way in ("resident", "streamed"))
    for told in content["results"]["cold"].values():
        for way in input_path.WAYS:
            _timed(told[way])
    waiting = content["results"]["wait"]
    _timed(waiting["streamed"], "images")
    for share in ("share", "share_after_first_batch"):
        assert len(waiting["waiting"][share]) == 2
        assert 0 < waiting["waiting"][f"{share}_median"] < 1
    assert waiting["waiting"]["share_median"] > waiting["waiting"]["share_after_first_batch_median"]


def test_peaks_of_memory(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    # a process of its own costs seconds to start; what it would do is done here
    monkeypatch.setattr(memory, "peak", lambda way, place: memory.one_epoch(way, place, threads=1))
    out = tmp_path / "memory.json"
    options = f"--repetitions 2 --parts peak --images 100 --peak 1 2 --workers 0 --buffer 50 --out {out}"
    memory.main(options.split())
    told = _told(out, capsys, "memory")["results"]["peak"]
    for way in memory.WAYS:
        assert [told[way][scale]["images"] for scale in ("1x", "2x")] == [100, 200]
        assert all(run["peak_bytes"] >= run["before_bytes"] > 0 for run in told[way]["1x"]["repetitions"])


def test_scale(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "measured", scale.clocked)  # without a process for each piece, as above
    out = tmp_path / "scale.json"
    options = (
        "--images 100 --sizes 1 2 --shards 4 --test-shards 1 --per-shard 40 --distinct 2 --batches 3 --bucket-shards 3 "
        f"--latency 0 --workers 0 --buffer 64 --out {out}"
    )
    scale.main(options.split())
    told = _told(out, capsys, "scale", repetitions=1)["results"]
    assert [told["sizes"][size]["images"] for size in ("1x", "2x")] == [100, 200]
    for entry in told["sizes"].values():
        assert entry["read"]["images"] == entry["poison"]["images"] == entry["images"] * 4 // 5
        assert 0 < entry["poison"]["share_of_raw"] < 0.2
        assert all(entry[name]["seconds"] > 0 for name in ("read", "poison", "evaluate"))
    assert told["strangers"]["index"]["images"] == 200
    assert told["strangers"]["poison"]["poisoned"] == 2
    assert told["strangers"]["batches"]["images"] == 96
    assert told["bucket"]["requests_when_warm"] == 0
    assert set(told["bucket"]["images_per_second"]) == {"link", "decoding", "cold", "warm"}


def test_a_peak_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    place = memory.Place(memory.images.write(tmp_path / "shards", 100), tmp_path, workers=0, buffer=50, compute=CPU)
    told = memory.peak("streamed", place)
    assert told["images"] == 100
    assert told["peak_bytes"] > told["before_bytes"] > 0


def test_time_of_epochs(tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "memory.json"
    options = f"--repetitions 2 --parts time --images 64 --time 1 2 --workers 0 --buffer 64 --out {out}"
    memory.main(options.split())
    told = _told(out, capsys, "memory")["results"]["time"]
    _timed(told["1x"], "images")
    assert told["1x"]["to_linear"] == 1
    assert told["2x"]["to_linear"] > 0


def test_deployed(tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "deployed.json"
    deployed.main(f"--repetitions 2 --seconds 0 --width 8 --batch 1 3 --out {out}".split())
    content = _told(out, capsys, "deployed")
    assert [(told["transform"], told["batch_size"]) for told in content["results"]] == [
        ("unet", 1),
        ("unet", 3),
        ("encoder_decoder", 1),
        ("encoder_decoder", 3),
    ]
    for told in content["results"]:
        _timed(told["torch"], "images")
        _timed(told["onnxruntime"], "images")
        assert told["ratio"] == pytest.approx(told["torch"]["seconds_median"] / told["onnxruntime"]["seconds_median"])
        assert told["difference"] < 1e-4


def test_idle(tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "idle.json"
    idle.main(f"--repetitions 1 --targets download --out {out}".split())
    told = _told(out, capsys, "idle", repetitions=1)["results"]
    _timed(told["status"], repetitions=1)
    _timed(told["repro"], repetitions=1)
    assert told["repro_to_status"] == pytest.approx(told["repro"]["seconds_median"] / told["status"]["seconds_median"])


def test_rounds_take_turns_and_every_second_one_goes_backwards() -> None:
    turns: list[str] = []

    def contestant(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    timings = interleaved({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, 3, "a test")
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert timings == {"a": Timing([1.0, 4.0, 5.0]), "b": Timing([2.0, 3.0, 6.0])}
    assert timings["a"].median == 4.0
    assert timings["a"].summary(8, "images")["images_per_second"] == 2.0


def test_tables_are_lined_up_and_figures_have_three_digits() -> None:
    assert table(["a", "bc"], [["long", "1"]]) == "a     bc\nlong   1"
    assert [number(value) for value in (12345.6, 1.2345, 0.00123, 0.0, None)] == ["12,346", "1.23", "0.00123", "0", "-"]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_list_on_a_cluster(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    def listed(folder: Path, *options: str, **_: str) -> float:
        rows = yaml.safe_load((folder / "experiments/twelve.yaml").read_text(encoding="utf-8"))["rows"]
        params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        assert params["download"]["source"] == "folder"
        assert len([*folder.glob("data/own/images/train/*/*.png")]) == 8
        for place, row in enumerate(rows[lost if options else 0 :]):
            (folder / f"metrics/runs/{place}").mkdir(parents=True)
            (folder / f"metrics/runs/{place}/{row['defense']}.json").write_text("{}")
        return 6.0 if options else 10.0

    monkeypatch.setattr(cluster, "_listed", listed)
    monkeypatch.setattr(cluster, "_nodes", lambda: nullcontext("here"))
    out = tmp_path / "cluster.json"
    if lost:
        with pytest.raises(UserError, match="11 of 12 runs came home"):
            cluster.main(["--out", str(out), "--images", "8"])
        return
    cluster.main(["--out", str(out), "--images", "8", "--repetitions", "2"])
    told = _told(out, capsys, "cluster")
    assert told["results"]["of_the_ideal"] == [pytest.approx(1.2)] * 2
