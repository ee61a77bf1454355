import asyncio
import resource
import socket
import tempfile
from pathlib import Path

import pytest

from peerloom.errors import EngineError
from peerloom.runtime.engines.ray import cluster, probe
from peerloom.runtime.engines.ray.api import AuthenticationError


@pytest.fixture(autouse=True)
def _unconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise AssertionError("Ray was asked")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    for name in ("RAY_TMPDIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_a_cluster_that_is_gone_is_named_before_ray_is_asked() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(EngineError, match=rf"no Ray cluster answers at {address}.*RAY_ADDRESS"):
            cluster.connect(address)


def test_a_port_that_cannot_be_is_a_message_too() -> None:
    with pytest.raises(EngineError, match=r"no Ray cluster answers at 127.0.0.1:99999"):
        cluster.connect("127.0.0.1:99999")


def test_too_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (128, 128))
    with pytest.raises(EngineError, match=r"the limit is 128.*ulimit -n"):
        cluster.connect("local")


def test_a_temporary_directory_whose_path_is_too_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / ("x" * 60)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(EngineError, match=r"too long for Ray's sockets.*TMPDIR"):
        cluster.connect("local")


def test_a_temporary_directory_that_is_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(EngineError, match=r"Ray cannot write to /dev/null"):
        cluster.connect("local")


def test_a_bare_exception_of_ray_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup")

    monkeypatch.setattr(probe, "SESSION_CHARACTERS", 0)
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    with pytest.raises(EngineError, match=r"timed out during startup.*engine=local"):
        cluster.connect("local")


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_a_server_that_is_silent_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_STATUS", "print(flush=True); import time; time.sleep(60)")
    monkeypatch.setattr(probe, "STATUS_SECONDS", 0.05)
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(
            EngineError, match=f"{address} does not answer as a Ray cluster does.*RAY_ADDRESS"
        ):
            await probe.check_reachable(address)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "RuntimeError: Ray version mismatch: cluster has Ray version 2.53.0 but local is 2.60.0",
            r"another version \(.*2\.53\.0.*install the same version",
        ),
        (
            "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: missing or incorrect",
            r"asks for its token, and RAY_AUTH_MODE is not set: set RAY_AUTH_MODE=token.*RAY_AUTH_TOKEN_PATH",
        ),
        ("C authentication_token_loader.cc:115: unexpected\n*** StackTrace", "asks for its token"),
        ("OSError: no such thing", "cannot use Ray at .*OSError: no such thing"),
    ],
)
async def test_why_a_cluster_refuses_is_told(monkeypatch: pytest.MonkeyPatch, said: str, told: str) -> None:
    monkeypatch.setattr(probe, "_STATUS", f"import sys; sys.exit({said!r})")
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        with pytest.raises(EngineError, match=told):
            await probe.check_reachable(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("mode", "variable", "told"),
    [
        (None, None, "RAY_AUTH_MODE is not set"),
        ("disabled", None, "RAY_AUTH_MODE is disabled"),
        ("token", None, "~/.ray/auth_token has none or another"),
        ("token", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN has none or another"),
        ("token", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN_PATH has none or another"),
    ],
)
async def test_what_to_set_for_a_token_is_told(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, variable: str | None, told: str
) -> None:
    monkeypatch.setattr(probe, "_STATUS", "import sys; sys.exit('InvalidAuthToken')")
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    if variable is not None:
        monkeypatch.setenv(variable, "secret")
    with pytest.raises(EngineError, match=f"at auto asks for its token, and {told}: set RAY_AUTH_MODE=token"):
        await probe.check_reachable("auto")


async def test_a_token_that_is_there_is_used_as_ray_does_for_auto(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needs = (
        "import os, sys; sys.exit('' if os.environ.get('RAY_AUTH_MODE') == 'token' else 'InvalidAuthToken')"
    )
    monkeypatch.setattr(probe, "_STATUS", needs)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(EngineError, match="asks for its token"):
        await probe.check_reachable("auto")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    await probe.check_reachable("auto")


def test_a_token_that_ray_misses_when_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise AuthenticationError("no authentication token was found")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    with pytest.raises(EngineError, match="the Ray cluster at ray://h:1 asks for its token"):
        cluster.connect("ray://h:1")
