"""`dvc.yaml` names what each stage uses, no file less and no file more: held against the source and real runs."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from refine.core.registry import names
from support import PROJECT, TINY_PARAMS, environment, run, run_stage, tiny_project, write_params

FURTHER = "shrinkpad"
SPLIT = "sd"
OTHER = "unlabeled"
STAGES = (
    "download",
    f"download-other@{OTHER}",
    "poison-dataset",
    "train-backdoor",
    "train-refine",
    "evaluate",
    f"split-samples@{SPLIT}",
    f"evaluate-split@{SPLIT}",
    f"give-data@{FURTHER}",
    f"train-defense@{FURTHER}",
    f"evaluate-defense@{FURTHER}",
)
OWN = {"data/own/images", "data/own/attack", "data/own/model"}
UNREAD = {
    "train-refine": {"data/raw/train"},
    f"give-data@{FURTHER}": {"data/raw/train", "data/poisoned/train", "data/poisoned/defender", "data/split"},
}
"""Images of a defender who has those of the data set, or another data regime, and splits of them."""
_NETWORK = [f"src/refine/architectures/resnet18/{name}.py" for name in ("network", "params")]
_TRANSFORM = [f"src/refine/defenses/refine/model/transforms/unet/{name}.py" for name in ("params", "transform")]
_DEFENSE = f"src/refine/defenses/{FURTHER}/defense.py"
CHOSEN = {
    "download": ["src/refine/sources/folder.py"],
    f"download-other@{OTHER}": [f"src/refine/sources/{OTHER}.py"],
    "poison-dataset": ["src/refine/attacks/badnets.py"],
    "train-backdoor": _NETWORK,
    "train-refine": [*_NETWORK, *_TRANSFORM],
    "evaluate": [*_NETWORK, *_TRANSFORM, "src/refine/defenses/refine/defense.py"],
    f"split-samples@{SPLIT}": [*_NETWORK, f"src/refine/splits/{SPLIT}/split.py"],
    f"evaluate-split@{SPLIT}": [],
    f"give-data@{FURTHER}": [_DEFENSE],
    f"train-defense@{FURTHER}": [*_NETWORK, _DEFENSE],
    f"evaluate-defense@{FURTHER}": [*_NETWORK, _DEFENSE],
}


def _room(name: str) -> set[str]:
    """The files of a room from which a parameter chooses one."""
    return {f"src/refine/{name}/{choice}.py" for choice in names(f"refine.{name.replace('/', '.')}")}


def _defenses(*names: str) -> set[str]:
    """Files of these names of all further defenses."""
    folders = [path for path in (PROJECT / "src/refine/defenses").iterdir() if path.name != "refine"]
    found = (path for folder in folders for name in names for path in folder.rglob(f"{name}.py"))
    return {path.relative_to(PROJECT).as_posix() for path in found if path.stat().st_size}


_REFINE = PROJECT / "src/refine/defenses/refine"
_TRANSFORMS = {path.relative_to(PROJECT).as_posix() for path in _REFINE.glob("model/transforms/*/[a-z]*.py")}
_ARCHITECTURES = {
    path.relative_to(PROJECT).as_posix() for path in (PROJECT / "src/refine/architectures").glob("*/[a-z]*.py")
}
_SPLITS = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "src/refine/splits").glob("*/[a-z]*.py")}

# What a stage chooses from, and what the choices choose from in turn: attacks that train may take any architecture.
CHOICES: dict[str, tuple[set[str], set[str]]] = {
    "download": (_room("sources"), set()),
    f"download-other@{OTHER}": (_room("sources"), set()),
    "poison-dataset": (_room("attacks"), _ARCHITECTURES),
    "train-refine": (_TRANSFORMS, set()),
    "evaluate": (_TRANSFORMS, set()),
    f"split-samples@{SPLIT}": (_SPLITS, set()),
    f"give-data@{FURTHER}": (_defenses("defense"), set()),
    f"train-defense@{FURTHER}": (_defenses("*"), set()),
    f"evaluate-defense@{FURTHER}": (_defenses("defense"), set()),
}


@dataclass(frozen=True)
class Declared:
    """What `dvc.yaml` says of a stage: paths relative to the project, and its parameters with their values."""

    deps: set[str]
    outs: set[str]
    params: dict[str, Any]


@dataclass(frozen=True)
class Used:
    """What a stage's process used: modules and files, relative to the project."""

    modules: set[str]
    opened: set[str]


Stages = tuple[Path, dict[str, Declared]]

PARAMS = {
    **TINY_PARAMS,
    "sources": {**TINY_PARAMS["sources"], OTHER: {"side": 16}},  # type: ignore[dict-item]
    "other_images": [OTHER],
    "splits": [SPLIT],
    "split_settings": {SPLIT: {"recipe": {"epochs": 3, "batch_size": 16}}},
    "defenses": [FURTHER],
}


def _command(stage: str) -> list[str]:
    """The script of a stage, and what it is given."""
    name, *of = stage.split("@")
    return [f"stages/{name.replace('-', '_')}.py", *of]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """The tiny project, and what its `dvc.yaml` declares."""
    project = tiny_project(tmp_path_factory.mktemp("traced") / "project")
    write_params(project, PARAMS)
    run(project, "git", "init", "-q")
    assert run(project, "dvc", "init", "-q").returncode == 0
    return project, _declared(project)


@pytest.fixture(scope="module")
def used(stages: Stages) -> dict[str, Used]:
    """What a traced run of each stage used, while `params.yaml` held the parameters that it declares and no other."""
    project, declared = stages
    used = {}
    for stage in STAGES:
        write_params(project, _nested(declared[stage].params))
        trace = project / "trace.json"
        path = f"{Path(__file__).parent / 'tracer'}:src"
        result = run(project, "python", *_command(stage), env=environment(PYTHONPATH=path, TRACE_TO=str(trace)))
        assert result.returncode == 0, f"{stage} needs a parameter that it does not declare: {result.stderr}"
        content = json.loads(trace.read_text(encoding="utf-8"))
        used[stage] = Used(_inside(project, content["modules"]), _inside(project, content["opened"]))
    write_params(project, PARAMS)
    return used


def _declared(project: Path) -> dict[str, Declared]:
    found = {}
    with Repo(str(project)) as repo:
        for stage in repo.index.stages:
            params: dict[str, Any] = {}
            deps = set()
            for dep in stage.deps:
                if hasattr(dep, "params"):
                    params |= dep.read_params()
                else:
                    deps.add(Path(dep.fs_path).relative_to(project.resolve()).as_posix())
            outs = {Path(out.fs_path).relative_to(project.resolve()).as_posix() for out in stage.outs}
            found[stage.name] = Declared(deps, outs, params)
    return found


def _nested(params: dict[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` to `{"a": {"b": 1}}`."""
    nested: dict[str, Any] = {}
    for name, value in params.items():
        *parents, last = name.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return nested


def _inside(project: Path, paths: list[str]) -> set[str]:
    root = project.resolve()
    resolved = (Path(path).resolve() for path in paths if "__editable__" not in path)  # of the installation
    return {path.relative_to(root).as_posix() for path in resolved if path.is_relative_to(root)}


def _covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


def _code(files: set[str]) -> set[str]:
    """The project's code among some files; those that mark packages are empty or define nothing that a stage uses."""
    return {file for file in files if file.startswith(("src/", "stages/")) and file.endswith(".py")} - {
        file for file in files if file.endswith("__init__.py")
    }


def _named_code(project: Path, deps: set[str]) -> set[str]:
    """Every file of code below the declared dependencies."""
    files = set()
    for dep in deps:
        path = project / dep
        below = path.rglob("*.py") if path.is_dir() else [path]
        files |= {file.relative_to(project).as_posix() for file in below}
    return _code(files)


def _imports(project: Path, file: str, seen: set[str]) -> set[str]:
    """A file and all of the project's files that it imports anywhere in its source, other than for types alone."""
    if file in seen:
        return seen
    seen.add(file)
    tree = ast.parse((project / file).read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            path = f"src/{name.replace('.', '/')}.py"
            if name.startswith("refine.") and (project / path).is_file():
                _imports(project, path, seen)
    return seen


def _for_other_choices(project: Path, stage: str) -> set[str]:
    """What the choices of a stage use of the library that the chosen one does not, their own files excepted.

    DVC cannot make a list of dependencies depend on a name, so the stage names it for every choice.
    """
    choices, theirs = CHOICES.get(stage, (set(), set()))
    reached: set[str] = set()
    for other in choices | theirs:
        _imports(project, other, reached)
    folders = {Path(choice).parent for choice in choices}
    own = {file for file in reached if Path(file).parent in folders}
    return reached - own - _reached(project, stage)


def _reached(project: Path, stage: str) -> set[str]:
    """What the source of a stage and its choices imports."""
    reached: set[str] = set()
    for file in (_command(stage)[0], *CHOSEN[stage]):
        _imports(project, file, reached)
    return reached


@pytest.mark.parametrize("stage", STAGES)
class TestEachStage:
    """The three views of one stage: declared, imported in a real run, reachable in the source."""

    def test_the_code_that_it_runs_is_the_code_that_it_declares(
        self, stages: Stages, used: dict[str, Used], stage: str
    ) -> None:
        project, declared = stages
        named = _named_code(project, declared[stage].deps)
        used_code = _code(used[stage].modules)
        named -= _for_other_choices(project, stage) - used_code
        assert named == used_code | {_command(stage)[0]}

    def test_the_code_that_its_source_reaches_is_the_code_that_it_declares(self, stages: Stages, stage: str) -> None:
        project, declared = stages
        reached = _reached(project, stage) | _for_other_choices(project, stage)
        named = _named_code(project, declared[stage].deps)
        assert reached <= named
        assert named == reached

    def test_it_reads_the_data_that_it_declares_and_no_other(
        self, stages: Stages, used: dict[str, Used], stage: str
    ) -> None:
        _, declared = stages
        ours = {file for file in used[stage].opened if file.startswith(("data/", "models/", "metrics/"))}
        outs = declared[stage].outs
        read = {f for f in ours if ".partial" not in f and not any(_covers(out, f) for out in outs)}
        deps = {dep for dep in declared[stage].deps if not dep.startswith(("src/", "stages/"))}
        unread = {dep for dep in deps if not any(_covers(dep, file) for file in read)}
        assert {file for file in read if not any(_covers(dep, file) for dep in deps)} == set()
        assert unread - OWN - UNREAD.get(stage, set()) == set()

    def test_it_opens_no_other_file_of_the_project(self, stages: Stages, used: dict[str, Used], stage: str) -> None:
        parameters = {"params.yaml"} if stages[1][stage].params else set()
        others = {
            f for f in used[stage].opened if not f.startswith(("data/", "models/", "metrics/", "src/", "stages/"))
        }
        assert {f for f in others if not f.startswith(f".scratch/{stage}-")} == parameters


def test_no_setting_of_the_machine_reaches_an_output(project: Path) -> None:
    """The same shards, whatever decodes them, and whichever variables are set."""
    for stage in ("download", "poison_dataset"):
        assert run_stage(project, stage).returncode == 0
    first = _contents(project / "data/poisoned")
    for stage in ("download", "poison_dataset"):
        assert (
            run_stage(project, stage, REFINE_WORKERS="2", REFINE_MIRROR="nowhere", REFINE_DEVICE="cpu").returncode == 0
        )
    assert _contents(project / "data/poisoned") == first


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
