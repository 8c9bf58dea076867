"""A defended model in torch, against the same one as an ONNX file in onnxruntime.

    python -m benchmarks.deployed

The weights are random, which changes no speed. Both get finished batches and compute with as many threads.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.common import Report, interleaved, number, parser
from benchmarks.images import SIDE
from benchmarks.trainings import card, classifier
from refine.core.errors import command
from refine.defenses.refine.defense import Refine
from refine.defenses.refine.model.label_map import derangement
from refine.defenses.refine.model.transform import built
from refine.defenses.refine.model.transforms.encoder_decoder import params as encoder_decoder
from refine.defenses.refine.model.transforms.unet import params as unet
from refine.deployment.check import Run, onnx_runtime, probe
from refine.deployment.export import INPUT, export
from refine.deployment.folder import Sums
from refine.deployment.model import Model
from refine.models.architecture import named
from refine.models.device import Compute

TRANSFORMS = {"unet": unet.Params(first_channels=16), "encoder_decoder": encoder_decoder.Params(channels=128)}


def defended(transform: str, width: int, compute: Compute) -> Model:
    """A ResNet-18 behind REFINE, with random weights."""
    network = named("resnet18", width=width)
    made, own = classifier(network, compute), card(network)
    system = Refine(made, built(TRANSFORMS[transform], own), derangement(len(own.classes), 666), "pixel").eval()
    sums = {"classifier": Sums(card_sha256="0" * 64, weights_sha256="0" * 64)}
    return Model(system, own, torch.device("cpu"), sums, None)


def seconds(run: Run, pixels: Tensor, least: float) -> float:
    """Seconds of one batch: the mean of as many as take this long."""
    with torch.inference_mode():
        run(pixels)
        count, start = 0, perf_counter()
        while not count or perf_counter() - start < least:
            run(pixels)
            count += 1
    return (perf_counter() - start) / count


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = parser("deployed", "A defended model in torch, against its ONNX file in onnxruntime.", repetitions=5)
    options.add_argument("--width", type=int, default=16, help="of ResNet-18 (default: %(default)s)")
    options.add_argument("--batch", type=int, nargs="*", default=[1, 64], help="sizes (default: 1 64)")
    options.add_argument("--seconds", type=float, default=1.0, help="least duration of a round (default: %(default)s)")
    given = options.parse_args(arguments)
    report = Report("deployed", given)
    results, rows = [], []
    for transform in TRANSFORMS:
        model = defended(transform, given.width, report.compute)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            checked = export(model, path, "onnx", probe(SIDE), report.compute.threads)
            size = path.stat().st_size
            ways: dict[str, Run] = {
                "torch": model.system.probabilities,
                "onnxruntime": onnx_runtime(path, INPUT, report.compute.threads),
            }
        for batch in given.batch:
            pixels = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(batch))
            work = {way: partial(seconds, run, pixels, given.seconds) for way, run in ways.items()}
            timings = interleaved(work, given.repetitions, f"{transform}, {batch}")
            ratio = timings["torch"].median / timings["onnxruntime"].median
            told = {way: timing.summary(batch, "images") for way, timing in timings.items()}
            results.append(
                {
                    "transform": transform,
                    "batch_size": batch,
                    "bytes": size,
                    "difference": checked.difference,
                    "ratio": ratio,
                    **told,
                }
            )
            milliseconds = [number(1000 * timings[way].median) for way in ways]
            rows.append([f"{transform} ({batch})", *milliseconds, number(ratio)])
    report.write(results, ["defended model (batch)", "torch, ms", "onnxruntime, ms", "ratio"], rows)


if __name__ == "__main__":
    command(main)
