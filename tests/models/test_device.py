"""Device, threads and precision, and the sentence when a device is not there."""

from __future__ import annotations

import logging

import pytest
import torch

from refine.core.errors import UserError
from refine.core.machine import machine
from refine.models import device
from refine.models.device import Compute, compute

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")


@WITHOUT_GPU
@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "cuda:3", "cuda:127", "cuda:128", "cuda:99999999999"])
def test_a_gpu_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("REFINE_DEVICE", asked)
    with pytest.raises(UserError, match=rf"REFINE_DEVICE={asked}, but torch finds 0 usable CUDA devices here"):
        compute(machine())


def test_a_gpu_beyond_the_last_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("REFINE_DEVICE", "cuda:2")
    with pytest.raises(UserError, match="torch finds 2 usable"):
        compute(machine())
    monkeypatch.setenv("REFINE_DEVICE", "cuda:1")
    assert compute(machine()).device == torch.device("cuda:1")


@WITHOUT_GPU
def test_auto_takes_the_processor_and_says_so_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        resolved = compute(machine())
    assert resolved.device == torch.device("cpu")
    assert [record.getMessage() for record in caplog.records] == ["device cpu (REFINE_DEVICE=auto), 1 CPU threads"]


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert compute(machine()).device == torch.device("cuda")


def test_the_threads_that_were_asked_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINE_DEVICE", "cpu")
    monkeypatch.setenv("REFINE_THREADS", "2")
    resolved = compute(machine())
    assert resolved.threads == torch.get_num_threads() == 2
    expected = {"device": "cpu", "device_name": "cpu", "threads": 2, "processes": 1}
    assert resolved.runtime == {**expected, "instructions": torch.backends.cpu.get_cpu_capability()}


@pytest.mark.parametrize("able", [True, False])
def test_auto_precision_is_bf16_only_where_the_processor_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    monkeypatch.setattr(device, "_cpu_multiplies_bf16", lambda: able)
    on_cpu = Compute(torch.device("cpu"), 1)
    assert on_cpu.precision("auto") == ("bf16" if able else "fp32")
    assert on_cpu.precision("fp32") == "fp32"
    assert on_cpu.precision("bf16") == "bf16"


@pytest.mark.parametrize("able", [True, False])
def test_auto_precision_on_a_gpu_asks_the_gpu(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: able)
    assert Compute(torch.device("cuda"), 1).precision("auto") == ("bf16" if able else "fp32")


def test_networks_run_in_the_precision_that_was_resolved() -> None:
    on_cpu = Compute(torch.device("cpu"), 1)
    matrix = torch.ones(2, 2)
    with on_cpu.autocast("bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with on_cpu.autocast("fp32"):
        assert (matrix @ matrix).dtype == torch.float32
