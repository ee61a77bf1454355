"""Real vLLM on the nodes of a Ray cluster, by processes of ours and by Ray Serve LLM, and nodes killed.

The tests share a cluster and run in their order; the last ones share an application of Ray Serve.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_tools import FOLDER, PATIENCE, left_of, note, peerloom, tree_of, until, until_gone

import peerloom as pl
from peerloom import LLMAgent, Sequence

PYTHON = f"{FOLDER}/venv/bin/python"
ROWS = 40
VLLM = (
    "engine=vllm",
    f"model={FOLDER}/smollm2",
    "served_name=smollm2",
    "replicas=2",
    f"program={FOLDER}/venv/bin/vllm",
    "max_model_len=4096",
    "gpu_memory_utilization=0.15",
    "dtype=float32",
    "extra=[--enforce-eager]",
)
SERVE = (
    "engine=ray-serve",
    f"model={FOLDER}/smollm2",
    "served_name=smollm2",
    "max_model_len=4096",
    "placement_group_config={bundles: [{CPU: 1}]}",
    "engine_kwargs={dtype: float32, enforce_eager: true, gpu_memory_utilization: 0.15, "
    "enable_prompt_tokens_details: true}",
    "port=8123",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE)]


class Cluster:
    """A head and two nodes, or more."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [PYTHON, str(Path(__file__).with_name("cluster.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        told: dict[str, Any] = self._line()
        self.address: str = told["address"]
        self.head: int = told["head"]
        self.raylets: list[int] = told["raylets"]

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def kill(self, raylet: int) -> dict[int, str]:
        """Kill a node; all processes it had."""
        tree = tree_of(raylet)
        os.kill(raylet, signal.SIGKILL)
        self.raylets.remove(raylet)
        return tree

    def add(self) -> None:
        """Add a node."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.raylets.append(self._line())

    def processes(self, *names: str) -> dict[int, str]:
        """Those on the nodes whose command line has one of the names."""
        found = {pid: name for raylet in (self.head, *self.raylets) for pid, name in tree_of(raylet).items()}
        return {pid: name for pid, name in found.items() if any(part in name for part in names)}

    def end(self) -> None:
        """End it."""
        with self._process:  # closes its pipes
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, clean_environment: None) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEERLOOM_FLEETS", str(tmp_path_factory.mktemp("fleets")))
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # or all replicas share the first core
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PATH", f"{FOLDER}/venv/bin:{os.environ['PATH']}")
        cluster = Cluster()
        yield cluster
        cluster.end()


def command(*arguments: str) -> str:
    return peerloom(*arguments, python=PYTHON, timeout=2 * PATIENCE)


def status(name: str) -> dict[str, Any]:
    return json.loads(command("serve", "status", name, "--json"))


def all_up(name: str, count: int) -> bool:
    return [each["state"] for each in status(name)["endpoints"]] == ["up"] * count


def rows_while(fleet: str, run_dir: Path, happens: Callable[[], None]) -> None:
    """Have all rows made, and something happen after the fifth."""
    agents = {"a": LLMAgent("Tell a long story about {{ input.n }}.", max_tokens=48)}
    happened: list[bool] = []

    class Watch(pl.Hooks):
        def progress(self, event: Any) -> None:
            if sum(event.outcomes.values()) >= 5 and not happened:
                happened.append(True)
                happens()

    result = pl.run(
        workflow=Sequence("a"),
        agents=agents,
        source=[{"n": number} for number in range(ROWS)],
        llm="fleet",
        config={"llm.name": fleet},
        engine="local",
        in_flight=8,
        run_dir=run_dir,
        progress=False,
        hooks=[Watch()],
    )
    outcomes = result.summary["outcomes"]
    assert happened and result.how == "finished"
    assert outcomes.keys() <= {"completed", "truncated"} and sum(outcomes.values()) == ROWS


@pytest.fixture
def servers(cluster: Cluster) -> Iterator[None]:
    """A fleet `v` with a server on each node."""
    began = time.monotonic()
    command("serve", "up", "v", *VLLM, "--ray", cluster.address)
    note("up", engine="vllm on Ray", replicas=2, seconds=round(time.monotonic() - began))
    yield
    there = cluster.processes("VLLM::", "vllm serve")
    command("serve", "down", "v")
    assert there and not left_of(there)


@pytest.mark.usefixtures("servers")
def test_a_lost_node_costs_no_row(cluster: Cluster, tmp_path: Path) -> None:
    pids = {each["pid"] for each in status("v")["endpoints"]}
    lost: dict[int, str] = {}
    began: list[float] = []

    def lose() -> None:
        nodes = [each for each in cluster.raylets if pids & tree_of(each).keys()]
        assert len(nodes) == 2  # a server on each
        lost.update(cluster.kill(nodes[0]))
        began.append(time.monotonic())
        cluster.add()

    rows_while("v", tmp_path / "run", lose)
    until_gone(lost)
    until(lambda: all_up("v", 2))
    note("killed", process="raylet of vLLM", back_after=round(time.monotonic() - began[0]))
    assert sorted(each["restarts"] for each in status("v")["endpoints"]) == [0, 1]


@pytest.fixture(scope="module")
def application(cluster: Cluster) -> str:
    began = time.monotonic()
    command("serve", "up", "smol", *SERVE, "--ray", cluster.address)
    note("up", engine="ray-serve", replicas=1, seconds=round(time.monotonic() - began))
    return "smol"


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_coral_on_ray_serve(application: str, engine: str, tmp_path: Path) -> None:
    config = {"llm.name": application}
    result = pl.run(
        "coral", llm="fleet", config=config, engine=engine, limit=10, run_dir=tmp_path / "run", progress=False
    )
    assert result.summary["outcomes"] == {"completed": 10}
    used = result.summary["tokens"]
    note("coral on ray-serve", engine=engine, cached=used["cached"], prompt=used["prompt"])


@pytest.mark.parametrize("name", ["VLLM::EngineCore", "ServeReplica:smol:LLMServer"])
def test_a_killed_process_of_ray_serve_costs_no_row(
    cluster: Cluster, application: str, name: str, tmp_path: Path
) -> None:
    until(lambda: cluster.processes(name))
    killed: list[float] = []

    def kill() -> None:
        [pid] = cluster.processes(name)
        os.kill(pid, signal.SIGKILL)
        killed.append(time.monotonic())

    rows_while(application, tmp_path / "run", kill)
    note("killed", process=f"{name} of ray-serve", rows_after=round(time.monotonic() - killed[0]))


def test_a_lost_node_of_ray_serve_costs_no_row(cluster: Cluster, application: str, tmp_path: Path) -> None:
    lost: dict[int, str] = {}
    began: list[float] = []

    def lose() -> None:
        [engine] = cluster.processes("VLLM::EngineCore")
        [node] = [each for each in cluster.raylets if engine in tree_of(each)]
        lost.update(cluster.kill(node))
        began.append(time.monotonic())

    rows_while(application, tmp_path / "run", lose)
    note("killed", process="raylet of ray-serve", rows_after=round(time.monotonic() - began[0]))
    until_gone(lost)


def test_a_killed_supervisor_of_ray_serve_leaves_what_serve_down_ends(
    cluster: Cluster, application: str
) -> None:
    used = cluster.processes("VLLM::EngineCore", "ServeReplica:smol")
    free = psutil.virtual_memory().available
    os.kill(status(application)["supervisor"]["pid"], signal.SIGKILL)
    assert "its supervisor was gone already" in command("serve", "down", application)
    seconds = until_gone(used)
    freed = psutil.virtual_memory().available - free
    note("down", engine="ray-serve", seconds=round(seconds, 1), freed=round(freed / 2**30, 1))
    assert used and not cluster.processes("VLLM::EngineCore", "ServeReplica:smol")
    assert freed > 2**30
