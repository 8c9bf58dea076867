"""An S3 server on this machine that waits before each answer and counts what it was asked for."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

BUCKET = "shards"
_KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Server:
    """Attributes:
    address: of the bucket.
    """

    address: str
    _count: Synchronized[int]

    @property
    def asked(self) -> int:
        """Requests for the content of an object so far."""
        return int(self._count.value)


@contextmanager
def served(folder: Path, latency: float) -> Iterator[Server]:
    """Serves the files of a folder as the objects of a bucket.

    Needs the packages of `pip install -e ".[test]"`.

    Args:
        folder: of files.
        latency: seconds before each answer.
    """
    spawn = multiprocessing.get_context("spawn")
    count = spawn.Value("q", 0)
    here, there = spawn.Pipe()
    before = dict(os.environ)
    os.environ |= _KEYS
    process = spawn.Process(target=_serve, args=(folder, latency, count, there), daemon=True)
    process.start()
    try:
        os.environ["AWS_ENDPOINT_URL"] = here.recv()
        yield Server(f"s3://{BUCKET}", count)
    finally:
        process.kill()
        process.join()
        os.environ.clear()
        os.environ |= before


def _serve(folder: Path, latency: float, count: Synchronized[int], said: Connection) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(folder.iterdir()):
        client.upload_file(str(path), BUCKET, path.name)
    application: Any = server._server
    inner = application.app

    def slow(environ: dict[str, Any], start: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".tar"):
            with count.get_lock():
                count.value += 1
        time.sleep(latency)
        return inner(environ, start)

    application.app = slow
    said.send(f"http://{host}:{port}")
    time.sleep(10**6)
