"""nginx as a process of the test's own, in a directory of its own, at a free port."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {outside}
    server {{
        listen 127.0.0.1:{port};
        {server}
    }}
}}
"""


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts nginx with the directives of its server, and of the `http` block around it; gives its URL."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("needs nginx: apt-get install nginx")
    with ExitStack() as running:

        def start(server: str, outside: str = "") -> str:
            return running.enter_context(_started(program, tmp_path, server, outside))

        yield start


@contextmanager
def _started(program: str, folder: Path, server: str, outside: str) -> Iterator[str]:
    port = _free_port()
    folder = folder / f"nginx-{port}"
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, outside=outside, port=port, server=server))
    log = folder / "error.log"
    with subprocess.Popen([program, "-p", folder, "-e", log, "-c", config]) as process:
        try:
            while not _listens(port):
                assert process.poll() is None, f"nginx ended: {log.read_text()}"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]
