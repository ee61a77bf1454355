"""Files behind URLs: a web server with and without ranges, one that fails, and samples for fingerprints."""

import gzip
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from kinds import jsonl, parquet

from peerloom.errors import SourceError
from peerloom.source.fingerprint import fingerprint
from peerloom.source.open import open_source

ROWS = [{"n": n, "text": "x" * 100} for n in range(200)]


class Server(ThreadingHTTPServer):
    """Serves what is in `files`, by name."""

    daemon_threads = True
    ranges = True
    files: dict[str, bytes]
    sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Any

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        data = self.server.files.get(self.path.partition("?")[0][1:])
        if data is None:
            self.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.server.ranges:
            data = data[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None]
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            try:
                self.wfile.write(data)
                self.server.sent += len(data)
            except ConnectionError:
                pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["ranges", "whole files"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    parquet(tmp_path / "p.parquet", ROWS)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.ranges = request.param
        server.files = {
            "q.jsonl": jsonl(ROWS),
            "q.jsonl.gz": gzip.compress(jsonl(ROWS)),
            "p.parquet": (tmp_path / "p.parquet").read_bytes(),
            "page.html": b"<html><body><p>A page with some text.</p></body></html>",
        }
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def test_lines_behind_a_url(server: Server, tmp_path: Path) -> None:
    for name in ("q.jsonl?download=true", "q.jsonl.gz"):
        source = open_source(f"{server.url}/{name}")
        rows = list(source.rows(0, 1))
        assert [row.data for row in rows] == ROWS
        assert source.index(tmp_path / "input.pos") == 200
        assert (source.positions(tmp_path / "input.pos") is not None) == (server.ranges and "gz" not in name)
        assert source.fetch([rows[7][:3], rows[150][:3]]) == [rows[7], rows[150]]
        assert "no such row any more" in source.fetch([(0, 900, 10**6)])[0].error
        assert fingerprint(source) == fingerprint(open_source(f"{server.url}/{name}"))


def test_parquet_behind_a_url(server: Server) -> None:
    if not server.ranges:
        with pytest.raises(SourceError, match=r"p\.parquet: the server sends .* whole.*: download it first"):
            open_source(f"{server.url}/p.parquet")
        return
    source = open_source(f"{server.url}/p.parquet", limit=150)
    assert [row.data for row in source.rows(0, 1)] == ROWS[:150]


def test_a_page_behind_a_url(server: Server) -> None:
    (row,) = open_source(f"{server.url}/page.html").rows(0, 1)
    assert row.data == {"text": "A page with some text.", "path": "page.html", "title": ""}


def test_what_is_not_there_or_goes(server: Server) -> None:
    with pytest.raises(SourceError, match=r"none\.jsonl: there is no such file"):
        open_source(f"{server.url}/none.jsonl")
    source = open_source([f"{server.url}/q.jsonl", f"{server.url}/page.html"])
    server.files.clear()
    with pytest.raises(SourceError, match=r"q\.jsonl"):
        list(source.rows(0, 1))
    (row,) = source.fetch([(1, 0, -1)])
    assert "page.html: the file cannot be read" in row.error


def test_of_a_large_file_samples_are_asked_for(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peerloom.source.fingerprint.REMOTE_WHOLE_BYTES", 1 << 20)
    content = bytearray(3 << 20)
    found: list[Any] = []
    for at in (None, 0, 200_000, -1):
        if at is not None:
            content[at] = 1
        with fsspec.open(f"{bucket}/a.jsonl", "wb") as file:
            file.write(bytes(content))
        found.append(fingerprint(open_source(f"{bucket}/a.jsonl"))["files"][0])
    assert found[0]["bytes"] == 3 << 20
    assert found[0] != found[1] == found[2] != found[3]
