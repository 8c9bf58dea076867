"""Starts stage scripts as forks of a process that has imported torch already, which takes most of a tiny stage's time.

python server.py SOCKET PARENT: for each connection, what `front.py` sends is run in a process of its own.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path

import matplotlib.figure
import pandas
import scipy.optimize
import sklearn.manifold
import torch
import torch.distributed.run
import torchvision
import webdataset

_LOADED = (matplotlib, pandas, scipy, sklearn, torch, torchvision, webdataset)


def main() -> None:
    """Serves until it is killed, or until whoever started it has ended."""
    place, starter = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children need nobody to wait for them
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen(64)
        listening.settimeout(1)
        while os.getppid() == starter:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            with connection:
                if os.fork() == 0:
                    listening.close()
                    _run(connection)


def _run(connection: socket.socket) -> None:
    status = 1
    try:
        connection.settimeout(None)
        content, standard, *_ = socket.recv_fds(connection, 1 << 20, 3)
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        status = _script(**json.loads(content))
    except BaseException:  # noqa: BLE001 (as an interpreter does at its top)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status & 255]))
        os._exit(status & 255)


def _script(arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    paths = [Path(arguments[0]).parent, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:1] = [str(Path(path).absolute()) for path in paths]
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main()
