"""Ray Serve LLM, with a stand-in for `ray.serve`, whose packages are not here."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from peerloom.errors import EngineError, ServiceError
from peerloom.runtime.engines.ray import serving
from peerloom.runtime.engines.ray.api import ray
from peerloom.runtime.engines.ray.serve_app import PlacementGroup, RayServeFleet, too_large
from peerloom.runtime.engines.ray.serving import RayServing, delete

OPTIONS = RayServeFleet(model="org/m", served_name="m", min_replicas=1, max_replicas=4, max_model_len=4096)


async def connected() -> None:
    """It is, as far as the stand-in knows."""


class Serve(ModuleType):
    """What is used of `ray.serve` and `ray.serve.llm`, and how it was."""

    def __init__(self) -> None:
        super().__init__("ray.serve")
        self.calls: list[tuple[str, Any]] = []
        self.applications: dict[str, Any] = {}
        self.proxies: dict[str, str] = {"node-a": "HEALTHY", "node-b": "STARTING"}
        self.fails = ""
        self.becomes: list[Any] = [overview("RUNNING")]
        self.holds: threading.Event | None = None
        self.entered = threading.Event()

    def start(self, **options: Any) -> None:
        self.calls.append(("start", options))

    def LLMConfig(self, **config: Any) -> dict[str, Any]:
        return config

    def build_openai_app(self, given: dict[str, Any]) -> dict[str, Any]:
        return given

    def RunTarget(self, *, target: Any, name: str, route_prefix: str) -> tuple[Any, str, str]:
        return target, name, route_prefix

    def run_many(self, targets: list[Any], *, wait_for_applications_running: bool) -> None:
        assert not wait_for_applications_running
        if self.holds is not None:
            self.entered.set()
            assert self.holds.wait(10)
        if self.fails:
            raise RuntimeError(self.fails)
        self.calls += [("run", target) for target in targets]
        self.applications[targets[0][1]] = None

    def status(self) -> Any:
        """As applications are now; each look at one takes it a step further."""
        if self.applications:
            now = self.becomes.pop(0) if len(self.becomes) > 1 else self.becomes[0]
            self.applications = dict.fromkeys(self.applications, now)
        return SimpleNamespace(applications=dict(self.applications), proxies=self.proxies)

    def delete(self, name: str) -> None:
        self.calls.append(("delete", name))
        self.applications.pop(name, None)

    def shutdown(self) -> None:
        self.calls.append(("shutdown", None))


def overview(status: str, message: str = "", **deployments: tuple[str, str]) -> Any:
    """An application as `serve.status` has it."""
    parts = {name: SimpleNamespace(status=how, message=said) for name, (how, said) in deployments.items()}
    return SimpleNamespace(status=status, message=message, deployments=parts)


def no_actor(name: str, namespace: str) -> Any:
    raise ValueError(name)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    stand_in = Serve()
    monkeypatch.setitem(sys.modules, "ray.serve", stand_in)
    monkeypatch.setitem(sys.modules, "ray.serve.llm", stand_in)
    monkeypatch.setattr(serving, "connect", lambda address: stand_in.calls.append(("connect", address)))
    monkeypatch.setattr(serving, "stop", lambda: stand_in.calls.append(("disconnect", None)))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_actor", no_actor)
    nodes = [
        {
            "NodeID": f"node-{each}",
            "NodeManagerAddress": f"10.0.0.{each}",
            "Alive": each != "c",
            "Resources": {"CPU": 4.0, "GPU": 1.0},
        }
        for each in "abc"
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(serving, "CHECK_SECONDS", 0.001)
    monkeypatch.setattr(serving, "MAX_FAILED_CHECKS", 2)
    monkeypatch.setattr(serving, "DEPLOYING_SECONDS", 0.001)
    return stand_in


async def test_the_application_as_ray_gets_it(serve: Serve, tmp_path: Path) -> None:
    kept = RayServing(connected, "mine", OPTIONS)
    await kept.start(lambda _: None, tmp_path)
    assert serve.calls == [
        ("start", {"proxy_location": "EveryNode", "http_options": {"host": "0.0.0.0", "port": 8000}}),
        (
            "run",
            (
                {
                    "llm_configs": [
                        {
                            "model_loading_config": {"model_id": "m", "model_source": "org/m"},
                            "deployment_config": {
                                "autoscaling_config": {"min_replicas": 1, "max_replicas": 4},
                                "request_router_config": {
                                    "request_router_class": (
                                        "ray.serve.llm.request_router.PrefixCacheAffinityRouter"
                                    )
                                },
                            },
                            "engine_kwargs": {"tensor_parallel_size": 1, "max_model_len": 4096},
                        }
                    ]
                },
                "mine",
                "/mine",
            ),
        ),
    ]
    assert [(each.url, each.state) for each in kept.listed()] == [
        ("http://10.0.0.a:8000/mine/v1", "up"),
        ("http://10.0.0.b:8000/mine/v1", "restarting"),
    ]
    await kept.stop()
    await kept.stop()
    assert serve.calls[2:] == [("delete", "mine"), ("disconnect", None), ("disconnect", None)]
    assert kept.listed() == ()


def test_no_more_than_was_asked_for() -> None:
    config = RayServeFleet(model="m", prefix_routing=False, accelerator_type="L4").config()
    assert "request_router_config" not in config["deployment_config"]
    assert config["accelerator_type"] == "L4"


async def test_proxies_come_and_go(serve: Serve, tmp_path: Path) -> None:
    kept = RayServing(connected, "mine", OPTIONS)
    await kept.start(lambda _: None, tmp_path)
    changed = asyncio.Event()
    watching = asyncio.create_task(kept.watch(changed.set))
    serve.proxies = {"node-b": "HEALTHY"}
    await changed.wait()
    assert [(each.url, each.state) for each in kept.listed()] == [("http://10.0.0.b:8000/mine/v1", "up")]
    watching.cancel()


async def test_an_application_that_was_deleted_has_died(serve: Serve, tmp_path: Path) -> None:
    kept = RayServing(connected, "mine", OPTIONS)
    await kept.start(lambda _: None, tmp_path)
    serve.applications.clear()
    with pytest.raises(ServiceError, match="mine is gone from Ray Serve: it was deleted"):
        await kept.watch(lambda: None)


async def test_a_cluster_that_answers_nothing(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = RayServing(connected, "mine", OPTIONS)
    await kept.start(lambda _: None, tmp_path)

    def silent() -> Any:
        raise RuntimeError("no controller")

    monkeypatch.setattr(serve, "status", silent)
    with pytest.raises(ServiceError, match="the state of mine in 2 checks: no controller"):
        await kept.watch(lambda: None)


async def test_one_that_does_not_come_up(serve: Serve, tmp_path: Path) -> None:
    serve.fails = "deploying app mine failed: no GPU"
    kept = RayServing(connected, "mine", OPTIONS)
    with pytest.raises(ServiceError, match="did not bring up org/m: deploying app mine failed: no GPU"):
        await kept.start(lambda _: None, tmp_path)


async def test_without_serve_llm(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve.llm", None)
    with pytest.raises(ServiceError, match=r"pip install 'ray\[serve,llm\]'"):
        await RayServing(connected, "mine", OPTIONS).start(lambda _: None, tmp_path)


def test_a_cluster_without_gpus() -> None:
    app = RayServeFleet(model="m", placement_group_config=PlacementGroup(bundles=[{"CPU": 2.0}]))
    assert app.config()["placement_group_config"] == {"bundles": [{"CPU": 2.0}]}
    assert app.bundles() == [{"CPU": 2.0}]


def test_what_a_replica_asks_for() -> None:
    each = RayServeFleet(
        model="m",
        tensor_parallel_size=2,
        engine_kwargs={"pipeline_parallel_size": 2},
        placement_group_config=PlacementGroup(bundle_per_worker={"CPU": 1, "GPU": 1}),
    )
    assert each.bundles() == [{"CPU": 1, "GPU": 1}] * 4
    assert RayServeFleet(model="m", tensor_parallel_size=2).bundles() == [{"GPU": 1}] * 2


@pytest.mark.parametrize(
    ("bundles", "why"),
    [
        ([{"CPU": 4}], ""),
        ([{"CPU": 4}, {"CPU": 4}], ""),
        ([{"CPU": 5}], "no node of the cluster has CPU=5"),
        ([{"CPU": 1, "GPU": 1}], "no node of the cluster has CPU=1, GPU=1"),
        ([{"CPU": 4}] * 3, "all nodes of the cluster together lack CPU=12"),
    ],
)
def test_what_no_cluster_can_hold(bundles: list[dict[str, float]], why: str) -> None:
    assert too_large(bundles, [{"CPU": 4.0}, {"CPU": 4.0}]) == why


async def test_what_serve_says_meanwhile_is_told(serve: Serve, tmp_path: Path) -> None:
    slow = overview("DEPLOYING", model=("UPDATING", "1 replica has taken more than 30s to initialize."))
    serve.becomes = [overview("DEPLOYING"), slow, slow, overview("RUNNING", model=("HEALTHY", "it was slow"))]
    told: list[str] = []
    await RayServing(connected, "mine", OPTIONS).start(told.append, tmp_path)
    assert told[1:] == ["model: 1 replica has taken more than 30s to initialize."]


async def test_a_deployment_that_failed_says_why(serve: Serve, tmp_path: Path) -> None:
    trace = "\n".join(
        ["failed to start 3 times. Error:", *map(str, range(100)), "\x1b[36mOSError: no config.json"]
    )
    failed = overview(
        "DEPLOY_FAILED", "A deployment failed.", model=("DEPLOY_FAILED", trace), web=("HEALTHY", "x")
    )
    serve.becomes = [overview("DEPLOYING"), failed]
    kept = RayServing(connected, "mine", OPTIONS)
    with pytest.raises(ServiceError, match="did not bring up org/m: A deployment failed") as caught:
        await kept.start(lambda _: None, tmp_path)
    told = str(caught.value).splitlines()
    assert told[1] == "model: failed to start 3 times. Error:"
    assert told[-1].strip() == "OSError: no config.json"
    assert len(told) == 10
    await kept.stop()
    assert ("delete", "mine") in serve.calls


async def test_a_replica_that_no_node_can_hold_ends_it(serve: Serve, tmp_path: Path) -> None:
    serve.becomes = [overview("DEPLOYING")]
    options = RayServeFleet(
        model="m",
        placement_group_config=PlacementGroup(bundles=[{"CPU": 1000}]),
        placement_seconds=0.01,
    )
    with pytest.raises(ServiceError, match=r"no node of the cluster has CPU=1000.*placement_group_config"):
        await RayServing(connected, "mine", options).start(lambda _: None, tmp_path)


async def test_one_that_is_deleted_while_it_comes_up(serve: Serve, tmp_path: Path) -> None:
    serve.becomes = [overview("DEPLOYING", "it takes long")]
    with pytest.raises(ServiceError, match="the application was deleted"):
        await RayServing(connected, "mine", OPTIONS).start(lambda _: serve.applications.clear(), tmp_path)


async def test_stopped_while_it_deploys_it_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    serve.holds = threading.Event()
    serve.proxies = {}
    kept = RayServing(connected, "mine", OPTIONS)
    starting = asyncio.create_task(kept.start(lambda _: None, tmp_path))
    await asyncio.to_thread(serve.entered.wait)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    stopping = asyncio.create_task(kept.stop())
    await asyncio.sleep(0.01)
    assert ("disconnect", None) not in serve.calls
    serve.holds.set()
    await stopping
    done = [name for name, _ in serve.calls]
    assert done == ["start", "run", "delete", "shutdown", "disconnect"]
    assert serve.applications == {}


async def test_stopped_while_it_connects_it_deploys_nothing(serve: Serve, tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def slowly() -> None:
        await reached.wait()

    kept = RayServing(slowly, "mine", OPTIONS)
    starting = asyncio.create_task(kept.start(lambda _: None, tmp_path))
    await asyncio.sleep(0)
    starting.cancel()
    stopping = asyncio.create_task(kept.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    reached.set()
    await stopping
    assert serve.calls == [("disconnect", None)]


async def test_serve_stays_for_the_applications_of_others(serve: Serve, tmp_path: Path) -> None:
    serve.proxies = {}
    kept = RayServing(connected, "mine", OPTIONS)
    await kept.start(lambda _: None, tmp_path)
    serve.applications["theirs"] = None
    await kept.stop()
    assert "shutdown" not in [name for name, _ in serve.calls]
    assert list(serve.applications) == ["theirs"]


async def test_an_application_that_is_not_deleted_is_told(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(name: str) -> None:
        raise TimeoutError("not deleted after 60s")

    kept = RayServing(connected, "mine", OPTIONS)
    await kept.start(lambda _: None, tmp_path)
    monkeypatch.setattr(serve, "delete", late)
    with pytest.raises(ServiceError, match="did not delete the application mine: not deleted after 60s"):
        await kept.stop()
    assert serve.calls[-1] == ("disconnect", None)


async def test_a_lost_connection_starts_no_cluster(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = RayServing(connected, "mine", OPTIONS)
    await kept.start(lambda _: None, tmp_path)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(serve, "status", lambda: pytest.fail("Serve would start a cluster of its own"))
    with pytest.raises(ServiceError, match="the connection to the cluster is lost"):
        await kept.stop()


def test_one_whose_supervisor_is_gone_is_deleted(serve: Serve) -> None:
    serve.applications["mine"] = None
    delete("ray://head", "mine")
    assert serve.calls == [("connect", "ray://head"), ("delete", "mine"), ("disconnect", None)]


def test_one_that_is_gone_with_its_supervisor(serve: Serve) -> None:
    delete("ray://head", "mine")
    assert serve.calls == [("connect", "ray://head"), ("disconnect", None)]


@pytest.mark.parametrize("address", [None, "local"])
def test_one_on_a_cluster_of_its_supervisors_own_has_ended_with_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    delete(address, "mine")
    assert serve.calls == []


def test_one_whose_cluster_is_gone(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(address: str) -> None:
        raise EngineError(f"no Ray cluster answers at {address}")

    monkeypatch.setattr(serving, "connect", gone)
    with pytest.raises(
        ServiceError, match=r"mine: no Ray cluster answers at h:1\. If that cluster has ended"
    ):
        delete("h:1", "mine")
