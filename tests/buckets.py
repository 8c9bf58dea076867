"""A bucket on this machine, which notes what it was asked for, and shards as a stranger would have written them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from refine.shards.format import network

BUCKET = "shards"


@dataclass
class Bucket:
    """A bucket.

    Attributes:
        endpoint: address of its server.
        client: of boto3.
        asked: method and path of each request.
        allowed: how many further objects may be put; None for any number.
        refuses: whether every request is refused, as for a wrong key.
    """

    endpoint: str
    client: Any
    asked: list[tuple[str, str]] = field(default_factory=list)
    allowed: int | None = None
    refuses: bool = False

    def put(self, name: str, content: bytes) -> None:
        """Puts an object."""
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content, ACL="public-read")

    @property
    def fetched(self) -> list[str]:
        """Names of the objects whose content was asked for, in order."""
        return [path.rpartition("/")[2] for method, path in self.asked if method == "GET" and path.endswith(".tar")]


@contextmanager
def bucket(patch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A server with an empty bucket, and an environment in which programs find it."""
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "nobody"),
        ("AWS_SECRET_ACCESS_KEY", "nothing"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        patch.setenv(name, value)
    patch.setattr(network, "_SYSTEMS", {})  # which know the endpoint of another test
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        made = Bucket(endpoint, client)
        inner = server._server.app  # werkzeug's, in front of which requests are noted

        def noted(environ: dict[str, Any], start: Any) -> Any:
            method = environ["REQUEST_METHOD"]
            made.asked.append((method, environ["PATH_INFO"]))
            if method == "PUT" and made.allowed is not None:
                made.allowed -= 1
            if made.refuses or (method == "PUT" and made.allowed is not None and made.allowed < 0):
                said = (
                    b"" if method == "HEAD" else b"<Error><Code>AccessDenied</Code><Message>no more</Message></Error>"
                )
                start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(said)))])
                return [said]
            return inner(environ, start)

        server._server.app = noted
        yield made
    finally:
        server.stop()


def shard(first: int, count: int, ending: str = "jpg", classes: int = 3, labeled: bool = True) -> bytes:
    """A shard of photos of 40 x 30 pixels, with JSON beside every other one, in a subfolder and with long names."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(first, first + count):
            key = f"photos/{'n' * 100}{number:04d}"
            files = {ending: photo(number, ending), "cls": str(number % classes).encode()}
            if not labeled:
                del files["cls"]
            if number % 2:
                files["json"] = json.dumps({"number": number}).encode()
            for name, content in files.items():
                header = tarfile.TarInfo(f"{key}.{name}")
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return packed.getvalue()


def photo(number: int, ending: str) -> bytes:
    """The file of a photo."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ending])
    return file.getvalue()


def on_disk(folder: Path, name: str, content: bytes) -> Path:
    """A shard as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name
