import resource
import socket
import tempfile
from pathlib import Path

import pytest

from peerloom.errors import EngineError
from peerloom.runtime.ray import cluster, probe


@pytest.fixture(autouse=True)
def _unconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise AssertionError("Ray was asked")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)


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
