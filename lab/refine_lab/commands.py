"""The lab's commands, which `refine` takes from the entry points `refine.commands`.

Each one imports its work when it is called, so that `refine --help` loads neither DVC nor torch.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from refine.proof.stress.stress import Defender
    from refine.training.training_set import TrainingSet


@click.command()
@click.argument("preset")
@click.option("--variant", default="default", show_default=True, help="One word for what is special about the run.")
def record(preset: str, variant: str) -> None:
    """Record the finished run of this checkout in metrics/runs, with each of its defenses.

    PRESET is the file of presets/ that params.yaml was made from. What is recorded has to be what the parameters say:
    it is refused where `dvc status` reports a change, or where code is not committed.
    """
    from refine_lab.recording.record import record_all
    from refine_lab.runs.recorded import HOME

    _log()
    for folder in record_all(Path(), HOME, preset, variant):
        click.echo(folder)


@click.command("run-list")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("attacks", nargs=-1, metavar="[ATTACK]...")
@click.option("--commit", is_flag=True, help="Commit each run when it ends.")
@click.option("--keep-going/--stop-at-first", default=True, show_default=True, help="Where a run fails.")
@click.option("--engine", type=click.Choice(["here", "ray"]), default="here", show_default=True, help="Who computes.")
@click.option("--home", type=click.Path(path_type=Path), help="Ray: folder for clones and caches that all nodes share.")
@click.option("--apart", is_flag=True, help="Ray: --home is a folder of its own on each node.")
@click.option("--cpus", type=click.IntRange(min=1), default=1, show_default=True, help="Ray: threads of a run.")
@click.option("--gpus", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Ray: GPUs of a run.")
def run_list(
    file: Path,
    attacks: tuple[str, ...],
    commit: bool,
    keep_going: bool,
    engine: str,
    home: Path | None,
    apart: bool,
    cpus: int,
    gpus: float,
) -> None:
    """Compute and record a list of runs, each one once.

    FILE is the list, such as experiments/attacks.yaml; without an ATTACK all of its runs are computed. They happen in
    clones of the last commit, so that this checkout stays free. A run that was interrupted goes on when the same
    command is typed again; one that fails does not stop the others.

    With --engine ray, the cluster at RAY_ADDRESS computes them, or this machine's processors; see docs/cluster.md.
    """
    from refine.core.errors import UserError
    from refine_lab.cluster import compute as cluster
    from refine_lab.cluster.connection import Cluster
    from refine_lab.lists import compute
    from refine_lab.lists.rows import read_rows

    _log()
    if apart and home is None:
        raise UserError("--apart is for a folder on each node; give it by --home")
    rows, project = read_rows(file), Path.cwd()
    if engine == "ray":
        cluster.compute(rows, attacks, commit, project, Cluster(home, apart, cpus, gpus), keep_going)
        return
    compute.compute(rows, attacks, commit, project, keep_going)


@click.command()
@click.argument("pages", nargs=-1, required=True, metavar="PAGE...", type=click.Path(path_type=Path))
def fill(pages: tuple[Path, ...]) -> None:
    """Fill the tables of pages, metrics/runs.csv and docs/runs.svg from recorded runs.

    PAGE is a file such as docs/attacks.md.
    """
    from refine_lab.pages import fill as filling
    from refine_lab.pages import overview

    filling.fill([*pages], Path.cwd())
    overview.write(Path.cwd())


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for tables and pictures.")
def compare(file: Path, out: Path) -> None:
    """Compare the recorded runs of a list: a table for programs, one for a paper, and two pictures.

    FILE is the list, such as experiments/compare.yaml. `refine fill` writes the tables of the page docs/comparison.md.
    """
    from refine_lab.pages.comparison.write import write

    for path in write(file, out, Path.cwd()):
        click.echo(path)


@click.command()
def page() -> None:
    """Set up the page of `dvc plots` so that it draws without a network; once in a checkout is enough."""
    from refine_lab.plot_page import install

    click.echo(f"{install(Path.cwd())}: `dvc plots show` draws without a network now")


@click.command()
def difference() -> None:
    """Compare the finished run with the committed one, and name the files that it changed."""
    from refine_lab.difference import report

    click.echo(report(Path()), nl=False)


@click.command("stress-all")
@click.argument("experiments", nargs=-1, required=True, metavar="EXPERIMENT...", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for stress.csv and the plot.")
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True, help="That the user has.")
@click.option(
    "--params",
    "file",
    type=click.Path(path_type=Path),
    help="Parameters file whose section train_refine holds other settings than those of `refine defend`.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the images, and of the stress test.")
def stress_all(experiments: tuple[Path, ...], out: Path, images: int, file: Path | None, seed: int) -> None:
    """Run the stress test on finished experiments, and compare it with their true triggers.

    EXPERIMENT is a folder with data/raw, data/poisoned, models/backdoor and params.yaml. What an experiment gave stays
    in a folder of --out, so that the same command goes on after an interruption.
    """
    from refine.core.machine import machine
    from refine.core.params import ParamsFile
    from refine.defenses.refine.training.params import TrainRefineParams
    from refine.models.device import compute
    from refine.proof.stress.defender import built_in_defender, refine_defender
    from refine.proof.stress.params import StressParams
    from refine_lab.stress.experiments import Settings, compare
    from refine_lab.stress.picture import draw

    _log()
    resolved = compute(machine())
    recipe = ParamsFile(file).section("train_refine", TrainRefineParams) if file else None

    def defender(classifier: Path, of: TrainingSet) -> Defender:
        return refine_defender(recipe, resolved) if recipe else built_in_defender(classifier, of, resolved)

    table = compare([*experiments], Settings(images, seed, StressParams(seed=seed), defender, resolved), out)
    draw(table, out / "stress.png")
    click.echo(out / "stress.csv")


@click.command()
@click.argument("experiment", type=click.Path(path_type=Path))
@click.option("--defense", default="models/refine", show_default=True, help="Its folder in the experiment.")
@click.option(
    "--against",
    "others",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A further defense of the same classifier, such as one with another label map; may be given several times.",
)
@click.option("--clean", type=click.Path(path_type=Path), help="The same experiment without attack, as a control.")
@click.option("--triggered", is_flag=True, help="Seek it beside the attack's trigger, to bring the backdoor back.")
@click.option("--target", type=click.IntRange(min=0), default=0, show_default=True, help="Class to lead images to.")
@click.option("--epsilon", type=click.FloatRange(0, 255), help="Bound of each value, in levels; 16 unless --length.")
@click.option("--length", type=click.FloatRange(0, min_open=True), help="Bound of its Euclidean length instead.")
@click.option("--steps", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Of the search.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the search.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file.")
def adapt(
    experiment: Path,
    defense: str,
    others: tuple[Path, ...],
    clean: Path | None,
    triggered: bool,
    target: int,
    epsilon: float | None,
    length: float | None,
    steps: int,
    seed: int,
    out: Path,
) -> None:
    """Seek a trigger through a defended classifier, as an attacker who knows the defense.

    EXPERIMENT is a folder with data/raw, models/backdoor and a defense. One pattern for all images is sought by
    following gradients through the defense, and tried on test images. --length is for pixels in [0, 1].
    """
    from refine.core.errors import UserError
    from refine.core.files import write_json
    from refine.core.machine import machine
    from refine.models.device import compute
    from refine.poisoning.adversarial.pattern import Ball, Box
    from refine_lab.adaptive.measure import Wanted, measure

    _log()
    if epsilon is not None and length is not None:
        raise UserError("--epsilon and --length bound the same pattern; give one of them")
    bound = Box(16.0 if epsilon is None else epsilon, size=1.0) if length is None else Ball(length, size=length / 20)
    wanted = Wanted(target, bound, steps, seed, compute(machine()), triggered)
    found = measure(experiment, experiment / defense, [*others], clean, wanted)
    write_json(out, found)
    for row in found["rows"]:
        told = f"sought through {row['sought_through']}, tried on {row['tried_on']}"
        click.echo(f"{told}: {100 * row['success']:.1f} % (without {100 * row['without']:.1f} %)")


@click.group()
def calibrate() -> None:
    """Measure how often the signs of a backdoor are right, on small models that are known (docs/signs.md)."""
    _log()


@calibrate.command("make")
@click.argument("home", type=click.Path(path_type=Path))
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Names of models, such as 'set-mnist5k-*'; all by default."
)
@click.option("--defend", is_flag=True, help="Train REFINE for each of them too, for the sign changed_answers.")
def calibrate_make(home: Path, only: tuple[str, ...], defend: bool) -> None:
    """Make the models in the folder HOME, by the stages of this checkout; what is finished there is left alone."""
    from refine.core.machine import machine
    from refine_lab.calibration.make import make
    from refine_lab.calibration.plan import chosen

    make(home, Path.cwd(), machine(), chosen(only), defend=defend)


@calibrate.command("measure")
@click.argument("home", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="CSV file; goes on where it has rows.")
@click.option("--sign", "signs", multiple=True, metavar="NAME", help="Name of a sign; all by default.")
def calibrate_measure(home: Path, out: Path, signs: tuple[str, ...]) -> None:
    """Write the scores of the signs for the models in the folder HOME."""
    from refine.core.machine import machine
    from refine.proof.judging.params import SignsParams
    from refine_lab.calibration.measure import finished, measure

    measure(finished(home), out, SignsParams(), machine(), signs)


@calibrate.command("set")
@click.argument("scores", type=click.Path(path_type=Path, exists=True))
@click.option("--out", "home", type=click.Path(path_type=Path), help="Folder for all files, instead of this checkout.")
def calibrate_set(scores: Path, home: Path | None) -> None:
    """Set the thresholds from the file SCORES; writes them, docs/signs/rates.md and docs/signs/scores.png."""
    from refine_lab.calibration.pages import write

    for path in write(scores, home):
        click.echo(path)


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
