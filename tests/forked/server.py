"""Starts programs as forks of a process that has imported what takes most of their time, such as torch and DVC.

python server.py SOCKET PARENT: for each connection, what `front.py` sends is run in a process of its own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from importlib import import_module
from pathlib import Path
from threading import Thread

LOADED = (
    "celery.app",
    "dulwich.porcelain",
    "dvc.cli.parser",
    "dvc.repo.experiments.executor.local",
    "dvc.repo.experiments.queue.workspace",
    "dvc.repo.index",
    "dvc.repo.metrics.diff",
    "dvc.repo.open_repo",
    "dvc.utils.strictyaml",
    "dvc_data.index.checkout",
    "hypothesis",
    "matplotlib.figure",
    "networkx",
    "pandas",
    "pydantic",
    "pygit2.repository",
    "pytest",
    "safetensors.torch",
    "scipy.optimize",
    "sklearn.manifold",
    "torch.distributed.launcher.api",
    "torch.fx.experimental.optimization",
    "torchvision",
    "webdataset",
    "xdist.plugin",
)
"""Nothing of the project, so that each fork imports that of its folder."""


def main() -> None:
    """Serves until it is killed, or until whoever started it has ended."""
    place, starter = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen(64)  # whoever asks already waits
        listening.settimeout(1)
        for name in LOADED:
            import_module(name)
        gc.freeze()  # collections of a fork need not go through all that
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children need nobody to wait for them
        while os.getppid() == starter:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            with connection:
                if os.fork() == 0:
                    listening.close()
                    _run(connection, Path(place).with_name("python"))


def _run(connection: socket.socket, front: Path) -> None:
    status = 1
    try:
        connection.settimeout(None)
        content, standard, *_ = socket.recv_fds(connection, 1 << 20, 3)
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        atexit._clear()  # what the server's modules registered
        status = _as_asked(connection, front, **json.loads(content))
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 (as an interpreter does at its top)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status & 255]))
        os._exit(status & 255)


def _as_asked(
    connection: socket.socket, front: Path, dvc: bool, arguments: list[str], folder: str, environment: dict[str, str]
) -> int:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "REFINE_PROCESSES" in environment:
        sys.executable = str(front)  # by which a stage starts its processes
    Thread(target=_end_with, args=(connection,), daemon=True).start()
    if dvc:
        sys.path[0] = str(Path(sys.executable).parent)
        sys.argv = ["dvc", *arguments]
        return int(import_module("dvc.cli").main(arguments))
    paths = [Path(path).absolute() for path in environment["PYTHONPATH"].split(os.pathsep)]
    program = None if arguments[0] == "-m" else Path(arguments[0])
    sys.path[:1] = [str(Path(folder) if program is None else program.parent.absolute()), *map(str, paths)]
    for hook in [path / "sitecustomize.py" for path in paths]:
        if hook.is_file():
            runpy.run_path(str(hook))
    sys.argv = arguments if program else arguments[1:]
    try:
        if program:
            runpy.run_path(str(program), run_name="__main__")
        else:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    return 0


def _end_with(connection: socket.socket) -> None:
    """Waits until the front is gone; whoever killed it wants this process to be gone too."""
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
