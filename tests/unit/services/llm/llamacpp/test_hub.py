"""Weights of the hub: a small server stands in for it, so nothing leaves the machine."""

import errno
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from peerloom.errors import ModelError
from peerloom.services.llm.llamacpp import weights as models

WEIGHTS = b"GGUF" + os.urandom(100_000)
COMMIT = "0" * 39 + "1"
FILES = {
    "/ann/tiny/resolve/main/tiny.gguf": WEIGHTS,
    "/ann/tiny/resolve/main/q4/tiny.gguf": WEIGHTS,
    "/ann/tiny/resolve/v2/tiny.gguf": WEIGHTS + b"2",
    "/ann/tiny/resolve/main/words.gguf": b"<html>",
    "/ann/tiny/resolve/main/big-00001-of-00002.gguf": WEIGHTS,
    "/ann/tiny/resolve/main/big-00002-of-00002.gguf": WEIGHTS,
    "/ann/gated/resolve/main/tiny.gguf": WEIGHTS,
}
TOKEN = "hf_not_a_real_token"


class Hub(BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(FILES.get(self.path, b""))

    def _answer(self, body: bytes) -> None:
        self.asked.append(f"{self.command} {self.path}")
        code, problem = self._problem()
        self.send_response(code)
        size = len(FILES[self.path]) if code == 200 else 0
        self.send_header("Content-Length", str(size))
        if code == 200:
            self.send_header("ETag", f'"{size:064x}"')
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            self.send_header("X-Error-Code", problem)
        self.end_headers()
        if code == 200:
            self.wfile.write(body)

    def _problem(self) -> tuple[int, str]:
        _, owner, repo, _, revision, *_ = self.path.split("/")
        if repo == "gated" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, "GatedRepo"
        if (owner, repo) not in (("ann", "tiny"), ("ann", "gated")):
            return 401, "RepoNotFound"
        if revision not in ("main", "v2"):
            return 404, "RevisionNotFound"
        return (200, "") if self.path in FILES else (404, "EntryNotFound")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the stand-in was asked."""
    Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_nobodys")
        monkeypatch.chdir(tmp_path)
        yield Hub.asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("model", ["ann/tiny/tiny.gguf", "hf:ann/tiny/q4/tiny.gguf"])
def test_pulled_once(model: str, asked: list[str], tmp_path: Path) -> None:
    assert models.missing_bytes(model) == len(WEIGHTS)
    seen: list[tuple[int, int | None]] = []
    path = models.pull(model, lambda step, done, total: seen.append((done, total)))
    assert path.is_relative_to(tmp_path / "cache")
    assert path.read_bytes() == WEIGHTS
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))
    before = len(asked)
    assert models.pull(model) == path
    assert models.missing_bytes(model) == 0
    assert len(asked) == before


def test_the_name_in_run_yaml_says_that_it_is_of_the_hub(asked: list[str]) -> None:
    assert models.canonical("ann/tiny/tiny.gguf") == "hf:ann/tiny/tiny.gguf"
    assert models.canonical("hf:ann/tiny@v2/tiny.gguf") == "hf:ann/tiny@v2/tiny.gguf"
    assert models.canonical("smollm2-135m") == "smollm2-135m"
    assert asked == []


def test_a_file_that_is_here_comes_first(tmp_path: Path, asked: list[str]) -> None:
    here = tmp_path / "ann" / "tiny" / "tiny.gguf"
    here.parent.mkdir(parents=True)
    here.write_bytes(b"GGUF of my own")
    assert models.canonical("ann/tiny/tiny.gguf") == str(here)
    assert models.pull("ann/tiny/tiny.gguf").read_bytes() == b"GGUF of my own"
    assert asked == []
    assert models.pull("hf:ann/tiny/tiny.gguf").read_bytes() == WEIGHTS


def test_a_revision(asked: list[str]) -> None:
    assert models.pull("ann/tiny@v2/tiny.gguf").read_bytes() == WEIGHTS + b"2"


def test_all_shards_are_pulled() -> None:
    path = models.pull("ann/tiny/big-00001-of-00002.gguf")
    assert path.name == "big-00001-of-00002.gguf"
    assert path.with_name("big-00002-of-00002.gguf").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("ann/tiny/none.gguf", "ann/tiny has no such file"),
        ("bob/tiny/tiny.gguf", r"has no repository bob/tiny \(a private one needs .*HF_TOKEN.* nor is there"),
        ("ann/tiny@v9/tiny.gguf", "ann/tiny has no revision v9"),
        ("ann/gated/tiny.gguf", "ann/gated is gated: accept its terms on its page, and put .*HF_TOKEN"),
    ],
)
def test_what_cannot_be_had(model: str, told: str) -> None:
    for ask in (models.pull, models.missing_bytes):
        with pytest.raises(ModelError, match=rf"^hf:{model}: .*{told}") as raised:
            ask(model)
        assert "hf_nobodys" not in str(raised.value)


def test_a_gated_one_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert models.pull("ann/gated/tiny.gguf").read_bytes() == WEIGHTS


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the library's own tries
    with pytest.raises(ModelError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        models.missing_bytes("ann/tiny/tiny.gguf")
    with pytest.raises(ModelError, match=r"not in the cache, and http://127\.0\.0\.1:9 cannot be reached"):
        models.pull("ann/tiny/tiny.gguf")


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for ask in (models.canonical, models.pull, models.missing_bytes):
        with pytest.raises(ModelError, match=r"pip install 'peerloom\[hub\]'"):
            ask("ann/tiny/tiny.gguf")
    assert asked == []


def test_what_is_no_gguf_is_refused() -> None:
    with pytest.raises(ModelError, match=r"words\.gguf is not a GGUF file"):
        models.pull("ann/tiny/words.gguf")


def test_progress_ends_the_pull() -> None:
    def enough(step: str, done: int, total: int | None) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        models.pull("ann/tiny/tiny.gguf", enough)


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "blob")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(ModelError, match="blob cannot be written: No space left on device"):
        models.pull("ann/tiny/tiny.gguf")


@pytest.mark.parametrize("model", ["hf:tiny", "hf:ann/tiny", "hf:ann/tiny/tiny.bin", "hf:ann/tiny/../x.gguf"])
def test_a_wrong_form(model: str) -> None:
    with pytest.raises(ModelError, match=r"is written hf:owner/repository/file\.gguf"):
        models.canonical(model)


@pytest.mark.parametrize("model", ["ann/tiny", "./ann/tiny/a.gguf", "/ann/tiny/a.gguf", "ann/tiny/../a.gguf"])
def test_what_is_no_file_of_the_hub_is_a_path(model: str, asked: list[str]) -> None:
    with pytest.raises(ModelError, match=r"cannot read the model .*no such file|No such file"):
        models.canonical(model)
    assert asked == []
