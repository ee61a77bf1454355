"""Ray Serve LLM, with a stand-in for `ray.serve`: it needs GPUs and packages that are not here."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from peerloom.errors import ServiceError
from peerloom.runtime.ray import serving
from peerloom.runtime.ray.api import ray
from peerloom.runtime.ray.serving import RayServing, ServeApp, delete

APP = ServeApp(app="mine", model="org/m", name="m", min_replicas=1, max_replicas=4, max_model_len=4096)


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

    def start(self, **options: Any) -> None:
        self.calls.append(("start", options))

    def LLMConfig(self, **config: Any) -> dict[str, Any]:
        return config

    def build_openai_app(self, given: dict[str, Any]) -> dict[str, Any]:
        return given

    def run(self, app: Any, *, name: str, route_prefix: str) -> None:
        if self.fails:
            raise RuntimeError(self.fails)
        self.calls.append(("run", (app, name, route_prefix)))
        self.applications[name] = SimpleNamespace(status="RUNNING", message="")

    def status(self) -> Any:
        return SimpleNamespace(applications=self.applications, proxies=self.proxies)

    def delete(self, name: str) -> None:
        self.calls.append(("delete", name))
        self.applications.pop(name, None)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    stand_in = Serve()
    monkeypatch.setitem(sys.modules, "ray.serve", stand_in)
    monkeypatch.setitem(sys.modules, "ray.serve.llm", stand_in)
    monkeypatch.setattr(serving, "connect", lambda address: stand_in.calls.append(("connect", address)))
    monkeypatch.setattr(serving, "stop", lambda: None)
    nodes = [
        {"NodeID": f"node-{each}", "NodeManagerAddress": f"10.0.0.{each}", "Alive": each != "c"}
        for each in "abc"
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(serving, "LOOKS", 2)
    return stand_in


async def test_the_application_as_ray_gets_it(serve: Serve, tmp_path: Path) -> None:
    kept = RayServing(connected, APP)
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
    assert serve.calls[2:] == [("delete", "mine")]
    assert kept.listed() == ()


def test_no_more_than_was_asked_for() -> None:
    config = ServeApp(app="a", model="m", name="m", prefix_routing=False, accelerator_type="L4").config()
    assert "request_router_config" not in config["deployment_config"]
    assert config["accelerator_type"] == "L4"


async def test_proxies_come_and_go(serve: Serve, tmp_path: Path) -> None:
    kept = RayServing(connected, APP)
    await kept.start(lambda _: None, tmp_path)
    changed = asyncio.Event()
    watching = asyncio.create_task(kept.watch(changed.set))
    serve.proxies = {"node-b": "HEALTHY"}
    await changed.wait()
    assert [(each.url, each.state) for each in kept.listed()] == [("http://10.0.0.b:8000/mine/v1", "up")]
    watching.cancel()


async def test_an_application_that_was_deleted_has_died(serve: Serve, tmp_path: Path) -> None:
    kept = RayServing(connected, APP)
    await kept.start(lambda _: None, tmp_path)
    serve.applications.clear()
    with pytest.raises(ServiceError, match="mine is gone from Ray Serve: it was deleted"):
        await kept.watch(lambda: None)


async def test_a_cluster_that_answers_nothing(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = RayServing(connected, APP)
    await kept.start(lambda _: None, tmp_path)

    def silent() -> Any:
        raise RuntimeError("no controller")

    monkeypatch.setattr(serve, "status", silent)
    with pytest.raises(ServiceError, match="how mine is in 2 looks: no controller"):
        await kept.watch(lambda: None)


async def test_one_that_does_not_come_up(serve: Serve, tmp_path: Path) -> None:
    serve.fails = "deploying app mine failed: no GPU"
    kept = RayServing(connected, APP)
    with pytest.raises(ServiceError, match="did not bring up org/m: deploying app mine failed: no GPU"):
        await kept.start(lambda _: None, tmp_path)


async def test_without_serve_llm(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve.llm", None)
    with pytest.raises(ServiceError, match=r"pip install 'ray\[serve,llm\]'"):
        await RayServing(connected, APP).start(lambda _: None, tmp_path)


def test_one_whose_keeper_is_gone_is_deleted(serve: Serve) -> None:
    delete("ray://head", "mine")
    assert serve.calls == [("connect", "ray://head"), ("delete", "mine")]
