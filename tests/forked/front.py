"""A `python` that has stage scripts run by `server.py`, and everything else by the interpreter that it stands for."""

import json
import os
import socket
import sys

REAL = sys.executable
PLACE = os.environ.get("TEST_FORKS", "")


def plain() -> bool:
    """Whether nothing about the process is special: no hooks by PYTHONPATH, no processes that it starts itself."""
    return (
        len(sys.argv) > 1
        and sys.argv[1].startswith("stages/")
        and os.environ.get("PYTHONPATH") == "src"
        and "REFINE_PROCESSES" not in os.environ
        and not os.path.exists("src/sitecustomize.py")  # noqa: PTH110 (pathlib takes longer than all the rest)
        and os.path.exists(PLACE)  # noqa: PTH110
    )


if not plain():
    os.execv(REAL, [REAL, *sys.argv[1:]])
environment = {name: value for name, value in os.environ.items() if name != "TEST_FORKS"}
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(PLACE)
    content = {"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": environment}  # noqa: PTH109
    socket.send_fds(connection, [json.dumps(content).encode()], [0, 1, 2])
    status = connection.recv(1)
sys.exit(status[0] if status else 1)
