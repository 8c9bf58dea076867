"""A published file is fetched whole or continued later, and nothing else ever stands under its name."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from refine.core.errors import UserError
from refine.download.fetch import Remote, fetch

CONTENT = np.random.RandomState(0).bytes(100_000)
NAME = "images.tar.gz"


class _Server(ThreadingHTTPServer):
    """A server of one file, which cuts connections off and forgets ranges as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.knows_ranges = True
        self.cut_after: list[int] = []  # bytes of the body that the next answers send before they stop
        self.status = 200
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200 or self.path != f"/files/{NAME}":
            self.send_error(server.status if server.status != 200 else 404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges else 0
        self.send_response(206 if start else 200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after.pop(0)] if server.cut_after else body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    """A running server."""
    with _Server() as running:
        thread = threading.Thread(target=lambda: running.serve_forever(poll_interval=0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for downloads that is not there yet."""
    return tmp_path / "cache"


def remote(url: str, content: bytes = CONTENT) -> Remote:
    """The description of a file whose content is this."""
    md5, sha256 = hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    return Remote(NAME, url, len(content), md5, sha256)


def official(server: _Server) -> Remote:
    """The file at its official address."""
    return remote(f"{server.url}/files/{NAME}")


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_in_one_go(server: _Server, cache: Path) -> None:
    path = fetch(official(server), None, cache)
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    assert names(cache) == [NAME]
    assert server.asked == [None]


def test_a_file_that_is_there_is_not_fetched_again(server: _Server, cache: Path) -> None:
    fetch(official(server), None, cache)
    fetch(official(server), None, cache)
    assert len(server.asked) == 1


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(server: _Server, cache: Path) -> None:
    server.cut_after = [30_000, 20_000]
    assert fetch(official(server), None, cache).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-", "bytes=50000-"]


def test_a_server_that_ignores_ranges_is_listened_to_from_the_start(server: _Server, cache: Path) -> None:
    server.knows_ranges = False
    server.cut_after = [30_000, 60_000]
    assert fetch(official(server), None, cache).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-", "bytes=60000-"]


def test_what_arrived_before_the_network_failed_for_good_is_kept_and_continued(server: _Server, cache: Path) -> None:
    server.cut_after = [10_000] * 5
    with pytest.raises(UserError, match=r"could not be downloaded .*; 50,000 of 100,000 bytes are kept"):
        fetch(official(server), None, cache)
    assert names(cache) == [f"{NAME}.part"]
    assert fetch(official(server), None, cache).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=50000-"
    assert names(cache) == [NAME]


def test_a_part_that_a_killed_run_left_is_continued(server: _Server, cache: Path) -> None:
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(CONTENT[:77_777])
    assert fetch(official(server), None, cache).read_bytes() == CONTENT
    assert server.asked == ["bytes=77777-"]


def test_a_whole_part_needs_no_request(server: _Server, cache: Path) -> None:
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch(official(server), None, cache).read_bytes() == CONTENT
    assert server.asked == []


def test_a_part_that_is_too_long_is_thrown_away(server: _Server, cache: Path) -> None:
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert fetch(official(server), None, cache).read_bytes() == CONTENT
    assert server.asked == [None]


def test_another_file_under_the_address_is_removed_and_named(server: _Server, cache: Path) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(UserError) as refused:
        fetch(official(server), None, cache)
    assert f"is not the published {NAME} (size, md5 or sha256 differ); it was removed" in str(refused.value)
    assert names(cache) == []


@pytest.mark.parametrize("sum_of", ["md5", "sha256"])
def test_both_sums_count(server: _Server, cache: Path, sum_of: str) -> None:
    wrong = "0" * len(getattr(official(server), sum_of))
    with pytest.raises(UserError, match="is not the published"):
        fetch(replace(official(server), **{sum_of: wrong}), None, cache)


def test_the_md5_decides_where_no_sha256_is_known(server: _Server, cache: Path) -> None:
    known = replace(official(server), sha256=None)
    with pytest.raises(UserError, match="is not the published"):
        fetch(replace(known, md5="0" * 32), None, cache)
    assert fetch(known, None, cache).read_bytes() == CONTENT


def test_a_file_longer_than_published_is_refused(server: _Server, cache: Path) -> None:
    server.content = CONTENT + b"more"
    with pytest.raises(UserError, match="is not the published"):
        fetch(official(server), None, cache)
    assert names(cache) == []


def test_a_kept_file_that_changed_is_named(server: _Server, cache: Path) -> None:
    fetch(official(server), None, cache).write_bytes(b"changed")
    with pytest.raises(UserError, match=rf"remove {cache / NAME} and run `dvc repro` again"):
        fetch(official(server), None, cache)


def test_no_file_has_the_final_name_during_the_download(
    server: _Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    handle = _Handler.do_GET

    def looking(handler: _Handler) -> None:
        seen.append(names(cache))
        handle(handler)

    monkeypatch.setattr(_Handler, "do_GET", looking)
    server.cut_after = [30_000]
    fetch(official(server), None, cache)
    assert seen == [[f"{NAME}.part"], [f"{NAME}.part"]]


def test_a_file_that_is_not_there_is_a_sentence(server: _Server, cache: Path) -> None:
    with pytest.raises(UserError, match=r"/elsewhere could not be downloaded \(Not Found\); 0 of 100,000 bytes"):
        fetch(remote(f"{server.url}/elsewhere"), None, cache)


def test_a_server_that_cannot_be_reached_is_a_sentence_that_names_the_mirror(cache: Path) -> None:
    with socket.socket() as taken:  # nobody else gets the port, and nobody listens there
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}"
        with pytest.raises(UserError, match=r"refused.*; 0 of 100,000 bytes.* or set REFINE_MIRROR to a folder or URL"):
            fetch(remote(address), None, cache)


def test_a_mirror_url_takes_the_place_of_the_address(server: _Server, cache: Path) -> None:
    for mirror in (f"{server.url}/files", f"{server.url}/files/"):
        assert fetch(remote("http://127.0.0.1:9/nowhere"), mirror, cache).read_bytes() == CONTENT
        (cache / NAME).unlink()


def test_a_mirror_folder_is_read_where_it_is(tmp_path: Path, cache: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch(remote("http://127.0.0.1:9/nowhere"), str(tmp_path), cache) == tmp_path / NAME
    assert not cache.exists()


def test_a_file_missing_from_a_mirror_folder_is_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError) as refused:
        fetch(remote("http://127.0.0.1:9/nowhere"), str(tmp_path), cache)
    assert str(refused.value) == f"{tmp_path / NAME} is missing; put {NAME} there or unset REFINE_MIRROR"


def test_another_file_in_a_mirror_folder_is_named_and_left_there(tmp_path: Path, cache: Path) -> None:
    (tmp_path / NAME).write_bytes(b"another")
    with pytest.raises(UserError, match=r"replace it or unset REFINE_MIRROR to download http://127\.0\.0\.1:9/nowhere"):
        fetch(remote("http://127.0.0.1:9/nowhere"), str(tmp_path), cache)
    assert (tmp_path / NAME).read_bytes() == b"another"
