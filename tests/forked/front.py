"""A `python` that has stages and modules run by `server.py`, and everything else by the interpreter it stands for.

By the name of `dvc` it has all commands of DVC run there.
"""

import json
import os
import socket
import sys

REAL = sys.executable
PLACE = os.environ.get("TEST_FORKS", "")
DVC = os.path.basename(sys.argv[0]) == "dvc"  # noqa: PTH119 (pathlib takes longer than all the rest)
WORDS = sys.argv[1:] if DVC else [word for word in sys.argv[1:] if word != "-u"]  # with which torchrun starts them


def served() -> bool:
    """Whether it is a command of DVC, or a program with a project's code before the one that is installed."""
    of_project = (len(WORDS) > 1 and WORDS[0] == "-m") or (bool(WORDS) and WORDS[0].startswith("stages/"))
    return (DVC or (of_project and os.environ.get("PYTHONPATH", "").endswith("src"))) and os.path.exists(PLACE)  # noqa: PTH110


if not served():
    os.execv(REAL, [REAL, *(["-m", "dvc"] if DVC else []), *sys.argv[1:]])
content = {"dvc": DVC, "arguments": WORDS, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(PLACE)
    socket.send_fds(connection, [json.dumps(content).encode()], [0, 1, 2])
    status = connection.recv(1)
sys.exit(status[0] if status else 1)
