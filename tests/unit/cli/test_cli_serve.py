"""`peerloom serve` with real supervisors; a program that serves the simulated model stands in for vLLM."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from peerloom.services.fleets.directory import Entry, Listed, SupervisorProcess, read, this_process, write

PATIENCE = 60.0  # seconds, for a busy machine
VLLM = f"""#!{sys.executable}
import argparse, os, signal, sys, time
from peerloom.services.llm.simulated.server.app import ServerConfig, run_server

parser = argparse.ArgumentParser()
parser.add_argument("verb", choices=["serve"])
parser.add_argument("model")
for option in ("host", "served-model-name"):
    parser.add_argument("--" + option, required=True)
for option in ("port", "tensor-parallel-size", "max-model-len"):
    parser.add_argument("--" + option, type=int, required=True)
for option in ("prefix-caching", "prompt-tokens-details"):
    parser.add_argument("--enable-" + option, action="store_true", required=True)
given = parser.parse_args()
print("key of", len(os.environ.get("VLLM_API_KEY", "")), "letters", flush=True)
for name in ("engine", "worker"):
    if os.fork() == 0:
        if name == "worker":
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(name, os.getpid(), flush=True)
        while True:
            time.sleep(1000)
if given.model == "too/big":
    print("RuntimeError: CUDA out of memory")
    print("engine: gone\\n" * 20)
    sys.exit("see above")
if given.model == "too/slow":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("still loading", flush=True)
    time.sleep(1000)
run_server(ServerConfig(host=given.host, port=given.port, model=given.served_model_name))
"""
OPTIONS = ("engine=vllm", "max_model_len=4096", "prefix_caching=true")


@pytest.fixture(autouse=True)
def fleets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of fleets of this test's own, and a `vllm` to start; whatever it left is ended."""
    programs, directory = tmp_path / "bin", tmp_path / "fleets"
    programs.mkdir()
    vllm = programs / "vllm"
    vllm.write_text(VLLM)
    vllm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PEERLOOM_FLEETS", str(directory))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    yield directory
    for file in directory.glob("*.json"):
        entry = read(file)
        if entry.supervisor is not None and entry.life == "alive" and entry.supervisor.pid != os.getpid():
            os.kill(entry.supervisor.pid, signal.SIGKILL)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tree(fleets: Path) -> list[int]:
    """The processes that the servers of fleet mine have started, as their logs say."""
    logs = "".join(log.read_text() for log in (fleets / "logs" / "mine").glob("vllm*.log"))
    return [int(pid) for pid in re.findall(r"^(?:engine|worker) (\d+)$", logs, re.MULTILINE)]


def gone(*pids: int) -> bool:
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids
    )


@pytest.mark.slow
def test_a_fleet_from_up_to_down(peerloom, fleets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERLOOM_FLEET_KEY", "hush-hush")
    ended = peerloom("serve", "up", "mine", *OPTIONS, "model=org/m", "served_name=m", "replicas=2")
    assert (ended.code, ended.err) == (0, "")
    assert "llm=fleet llm.name=mine uses it" in ended.out
    entry = read(fleets / "mine.json")
    assert (entry.model, entry.engine, entry.state, entry.key) == ("m", "vllm", "up", True)
    first, second = entry.endpoints
    for endpoint in (first, second):
        with urlopen(f"{endpoint.url}/models") as answer:
            assert json.load(answer)["data"][0]["id"] == "m"

    assert "2 of 2" in peerloom("serve", "status").out
    status = json.loads(peerloom("serve", "status", "mine", "--json").out)
    assert (status["state"], status["supervisor_is"], len(status["endpoints"])) == ("up", "alive", 2)
    again = peerloom("serve", "up", "mine", *OPTIONS, "model=org/m")
    assert again.code == 1
    assert "there is a fleet mine already" in again.err

    assert first.pid is not None and second.pid is not None and entry.supervisor is not None
    until(lambda: len(tree(fleets)) == 4)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: [each.restarts for each in read(fleets / "mine.json").endpoints] == [1, 0])
    until(lambda: len(read(fleets / "mine.json").urls) == 2)
    assert len(tree(fleets)) == 6
    assert (
        sum(not gone(pid) for pid in tree(fleets)) == 4
    )  # those of the killed one ended before its next life
    assert "restarted 1 times" in peerloom("serve", "status", "mine").out

    written = "".join(file.read_text() for file in fleets.rglob("*") if file.is_file())
    assert "key of 9 letters" in written
    assert "hush-hush" not in written
    servers = [each.pid for each in read(fleets / "mine.json").endpoints]
    assert peerloom("serve", "down", "mine").out == "fleet mine is down\n"
    assert gone(entry.supervisor.pid, *filter(None, servers), *tree(fleets))
    assert "there are no fleets" in peerloom("serve", "status").out
    missing = peerloom("serve", "status", "mine")
    assert (missing.code, "there is no fleet mine" in missing.err) == (1, True)


@pytest.mark.slow
def test_a_supervisor_that_was_killed_is_noticed(peerloom, fleets: Path) -> None:
    assert peerloom("serve", "up", "mine", *OPTIONS, "model=org/m").code == 0
    entry = read(fleets / "mine.json")
    assert entry.supervisor is not None and entry.endpoints[0].pid is not None
    os.kill(entry.supervisor.pid, signal.SIGKILL)
    until(lambda: gone(entry.supervisor.pid))
    assert "its supervisor is gone, and its servers with it" in peerloom("serve", "status", "mine").out
    assert peerloom("serve", "down", "mine").out == "fleet mine is down; its supervisor was gone already\n"
    assert gone(entry.endpoints[0].pid, *tree(fleets))
    assert not (fleets / "mine.json").exists()


@pytest.mark.slow
def test_a_fleet_that_cannot_come_up_says_why(peerloom, fleets: Path) -> None:
    ended = peerloom("serve", "up", "mine", *OPTIONS, "model=too/big")
    assert ended.code == 1
    assert "the vllm server of model too/big ended with exit code 1" in ended.err
    assert "RuntimeError: CUDA out of memory" in ended.err  # the cause, though it is not among the last lines
    assert "see above" in ended.err
    assert gone(*tree(fleets))
    assert "failed" in peerloom("serve", "status").out
    assert peerloom("serve", "down", "mine").code == 0


@pytest.mark.slow
def test_a_fleet_that_takes_too_long_is_ended(peerloom, fleets: Path) -> None:
    ended = peerloom("serve", "up", "mine", *OPTIONS, "model=too/slow", "--timeout", "6")
    assert ended.code == 1
    assert "was not up after 6 s (--timeout)" in ended.err
    assert "still loading" in ended.err
    assert tree(fleets) and gone(*tree(fleets))  # it ignores SIGTERM
    assert not (fleets / "mine.json").exists()


@pytest.mark.slow
def test_one_that_is_taken_down_while_it_starts(peerloom, fleets: Path) -> None:
    command = (sys.executable, "-m", "peerloom", "serve", "up", "mine", *OPTIONS, "model=too/slow")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as starting:
        until(lambda: (fleets / "mine.json").exists() and tree(fleets))
        assert peerloom("serve", "down", "mine").out == "fleet mine is down\n"
        assert "fleet mine was taken down before it was up" in starting.communicate(timeout=PATIENCE)[1]
    assert starting.returncode == 1
    assert gone(*tree(fleets))


@pytest.mark.slow
def test_a_program_that_is_not_there(peerloom) -> None:
    ended = peerloom("serve", "up", "mine", *OPTIONS, "model=m", "program=no-such-vllm")
    assert "cannot start 'no-such-vllm': no such program" in ended.err


def entry(**more) -> Entry:
    return Entry(model="m", engine="vllm", endpoints=(Listed(url="http://h:1/v1"),), **more)


def test_a_rebooted_machine(peerloom, fleets: Path) -> None:
    ours = this_process()
    write(fleets / "old.json", entry(supervisor=SupervisorProcess(host=ours.host, pid=1, began=0.0)))
    assert "dead" in peerloom("serve", "status").out
    assert peerloom("serve", "down", "old").code == 0
    assert os.listdir(fleets) == []


def test_a_fleet_of_another_machine_is_left_alone(peerloom, fleets: Path) -> None:
    supervisor = SupervisorProcess(host="elsewhere", pid=os.getpid(), began=this_process().began)
    write(fleets / "far.json", entry(supervisor=supervisor, beat=time.time()))
    ended = peerloom("serve", "down", "far")
    assert ended.code == 1
    assert "runs on elsewhere: `peerloom serve down far` has to be called there" in ended.err
    write(fleets / "far.json", entry(supervisor=supervisor, beat=time.time() - 1000))
    assert "its supervisor on elsewhere has not been heard of" in peerloom("serve", "status", "far").out
    assert peerloom("serve", "down", "far").code == 0


def test_one_written_by_hand_is_not_ended(peerloom, fleets: Path) -> None:
    write(fleets / "theirs.json", entry())
    ended = peerloom("serve", "down", "theirs")
    assert ended.code == 1
    assert "was not started by `peerloom serve up`: remove" in ended.err
    assert "there is a fleet theirs already" in peerloom("serve", "up", "theirs", *OPTIONS, "model=m").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "engine is needed: llamacpp, vllm, sglang, ray-serve."),
        (("engine=vlm",), "engine=vlm: must be one of llamacpp, vllm, sglang, ray-serve."),
        (("engine=vllm",), "model is needed: write model=..."),
        (("engine=vllm", "model=m", "max_model_length=1"), "Did you mean 'max_model_len'?"),
        (("engine=vllm", "model=m", "replicas=0"), "replicas=0: must be 1 or more."),
        (("engine=vllm", "model=m", "api_key=abc"), "api_key holds what looks like a secret"),
        (("engine=ray-serve", "model=m", "min_replicas=3"), "min_replicas=3 is more than max_replicas=1"),
        (
            ("engine=ray-serve", "model=m", "placement_group_config={strategy: PACK}"),
            "placement_group_config: must have one of bundles and bundle_per_worker",
        ),
        (
            ("engine=ray-serve", "model=m", "placement_group_config={bundles: [{CPU: -1}]}"),
            "must be 0 or more",
        ),
        (("engine=ray-serve", "model=m", "--api-key-env", "KEY"), "engine=ray-serve takes no key"),
        (("engine=vllm", "model=m", "--api-key-env", "NOT_SET"), "--api-key-env NOT_SET: that environment"),
        (("engine=llamacpp", "model=/no/such.gguf"), "cannot read the model /no/such.gguf"),
    ],
)
def test_what_cannot_be_started(peerloom, arguments: tuple[str, ...], message: str, fleets: Path) -> None:
    ended = peerloom("serve", "up", "mine", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert not fleets.exists()
