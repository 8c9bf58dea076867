"""Servers on this machine that DVC can push to: SSH, with a connection that can be cut, and WebDAV."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import asyncssh
from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp


@dataclass
class Ssh:
    """A server of files by SSH.

    Attributes:
        url: of the folder that is meant, with the user.
        key: file of the private key that it accepts.
        cut_after: writes until it cuts the connection, once; None to keep it.
    """

    url: str
    key: Path
    cut_after: int | None = None
    connections: list[Any] = field(default_factory=list)


@contextmanager
def ssh(folder: Path) -> Iterator[Ssh]:
    """Serves files, of which `folder/remote` is meant; keys lie beside it."""
    host, own = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    (folder / "remote").mkdir(parents=True)
    key = folder / "key"
    own.write_private_key(str(key))
    accepted = asyncssh.import_authorized_keys(own.export_public_key().decode())
    made = Ssh("", key)

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: Any) -> None:
            super().__init__(channel)
            made.connections.append(channel.get_connection())

        def write(self, file_obj: Any, offset: int, data: bytes) -> Any:
            if made.cut_after is not None:
                made.cut_after -= 1
                if made.cut_after < 0:
                    made.cut_after = None
                    for connection in made.connections:
                        connection.abort()
            return super().write(file_obj, offset, data)

    async def listen() -> Any:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys=accepted, sftp_factory=Files
        )

    async def close() -> None:
        for connection in made.connections:
            connection.abort()
        listening.close()
        await listening.wait_closed()

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    try:
        port = listening.sockets[0].getsockname()[1]
        made.url = f"ssh://tester@127.0.0.1:{port}{folder / 'remote'}"
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def webdav(folder: Path) -> Iterator[str]:
    """Serves `folder/remote` to anybody; gives its address."""
    (folder / "remote").mkdir(parents=True)
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder / "remote")},
            "simple_dc": {"user_mapping": {"*": True}},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    server = Server(("127.0.0.1", 0), app)
    server.prepare()
    thread = Thread(target=server.serve)
    thread.start()
    try:
        yield f"webdav://127.0.0.1:{server.bind_addr[1]}/"
    finally:
        server.stop()
        thread.join()
