"""A fleet that is an application of Ray Serve LLM: vLLM, scaled and routed by Ray, behind OpenAI's protocol.

Ray keeps its replicas alive and adds or takes some away as calls come; what is watched here is the
application, and on which nodes Serve's proxies answer. It needs GPUs, so it is written against the interface
of `ray.serve.llm` (Ray 2.60) and tested with a stand-in.
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peerloom.errors import EngineError, ServiceError
from peerloom.runtime.ray.api import RayError, ray
from peerloom.runtime.ray.cluster import connect, reason, stop
from peerloom.services.fleets.directory import Listed

LOOK_SECONDS = 5.0
LOOKS = 6
"""So many looks in a row at which Ray does not answer, and the fleet is taken for lost."""

_PREFIX_ROUTER = "ray.serve.llm.request_router.PrefixCacheAffinityRouter"
_HOPELESS = {"DEPLOY_FAILED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeApp:
    """One model as an application.

    Args:
        app: its name there, which is also the first part of its URL's path.
        model: a name on Hugging Face, or a path that every node has.
        name: what it is called in calls.
        min_replicas: as few as there may be.
        max_replicas: as many as there may be.
        target_ongoing_requests: calls under way for which a replica is enough; default Ray's own.
        tensor_parallel_size: GPUs of one replica.
        max_model_len: longest prompt and reply together, in tokens; default the model's own.
        accelerator_type: the kind of GPU, as Ray names it.
        prefix_routing: whether calls go to the replica that has seen the longest part of their prompt.
        engine_kwargs: further arguments of the engine.
        port: where Serve is to listen, on every node.
    """

    app: str
    model: str
    name: str
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float | None = None
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    accelerator_type: str | None = None
    prefix_routing: bool = True
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    port: int = 8000

    def config(self) -> dict[str, Any]:
        """The arguments of `LLMConfig`."""
        scaling: dict[str, Any] = {"min_replicas": self.min_replicas, "max_replicas": self.max_replicas}
        if self.target_ongoing_requests is not None:
            scaling["target_ongoing_requests"] = self.target_ongoing_requests
        deployment: dict[str, Any] = {"autoscaling_config": scaling}
        if self.prefix_routing:
            deployment["request_router_config"] = {"request_router_class": _PREFIX_ROUTER}
        engine = {"tensor_parallel_size": self.tensor_parallel_size, **self.engine_kwargs}
        if self.max_model_len is not None:
            engine["max_model_len"] = self.max_model_len
        config: dict[str, Any] = {
            "model_loading_config": {"model_id": self.name, "model_source": self.model},
            "deployment_config": deployment,
            "engine_kwargs": engine,
        }
        if self.accelerator_type is not None:
            config["accelerator_type"] = self.accelerator_type
        return config


class RayServing:
    """Keeps the application `app`, see `fleets.keeper.Serving`; `connect` connects this process to Ray."""

    def __init__(self, connect: Callable[[], Awaitable[None]], app: ServeApp) -> None:
        self._connect = connect
        self._app = app
        self._listed: tuple[Listed, ...] = ()
        self._begun = False

    async def start(self, tell: Callable[[str], None], log_dir: Path) -> None:
        """Deploy the application, and wait until it runs.

        Raises:
            ServiceError: if Ray cannot be used or lacks Serve LLM, or the application does not come up.
        """
        await self._connect()
        serve, llm = _module("ray.serve"), _module("ray.serve.llm")
        self._begun = True
        tell(f"Ray Serve deploys {self._app.model}; its own logs are in Ray's dashboard")
        try:
            await asyncio.to_thread(self._deploy, serve, llm)
        except (RayError, RuntimeError, ValueError, TimeoutError) as error:
            raise ServiceError(f"Ray Serve did not bring up {self._app.model}: {reason(error)}") from error
        self._listed = await asyncio.to_thread(self._look, serve)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look now and then where the application answers.

        Raises:
            ServiceError: if it is gone, or Ray is.
        """
        serve, silent = _module("ray.serve"), 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                listed = await asyncio.to_thread(self._look, serve)
                silent = 0
            except (RayError, RuntimeError, ConnectionError, TimeoutError) as error:
                silent += 1
                if silent >= LOOKS:
                    raise ServiceError(
                        f"Ray did not say how {self._app.app} is in {LOOKS} looks: {reason(error)}"
                    ) from error
                continue
            if listed != self._listed:
                self._listed = listed
                changed()

    def listed(self) -> Sequence[Listed]:
        """The application behind each proxy that is well."""
        return self._listed

    async def stop(self) -> None:
        """Delete the application. May be called at any time, and twice."""
        if self._begun:
            self._begun = False
            self._listed = ()
            try:
                await asyncio.to_thread(_module("ray.serve").delete, self._app.app)
            except (RayError, RuntimeError, ConnectionError) as error:
                raise ServiceError(f"Ray Serve did not delete {self._app.app}: {reason(error)}") from error
        await asyncio.to_thread(stop)

    def _deploy(self, serve: Any, llm: Any) -> None:
        serve.start(proxy_location="EveryNode", http_options={"host": "0.0.0.0", "port": self._app.port})
        app = llm.build_openai_app({"llm_configs": [llm.LLMConfig(**self._app.config())]})
        serve.run(app, name=self._app.app, route_prefix=f"/{self._app.app}")

    def _look(self, serve: Any) -> tuple[Listed, ...]:
        status = serve.status()
        overview = status.applications.get(self._app.app)
        if overview is None or _text(overview.status) in _HOPELESS:
            why = "it was deleted" if overview is None else overview.message
            raise ServiceError(f"the application {self._app.app} is gone from Ray Serve: {why}")
        up = _text(overview.status) == "RUNNING"
        hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        return tuple(
            Listed(
                url=f"http://{hosts[node]}:{self._app.port}/{self._app.app}/v1",
                state="up" if up and _text(proxy) == "HEALTHY" else "restarting",
                place=hosts[node],
            )
            for node, proxy in sorted(status.proxies.items())
            if node in hosts
        )


def delete(address: str | None, app: str) -> None:
    """Delete an application whose keeper is gone; blocks.

    Raises:
        ServiceError: if Ray cannot be reached.
    """
    try:
        connect(address)
        _module("ray.serve").delete(app)
    except (EngineError, RayError, RuntimeError) as error:
        raise ServiceError(f"Ray Serve did not delete {app}: {error}") from error
    finally:
        stop()


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ServiceError(
            f"engine=ray-serve needs {name}, which cannot be imported ({error}): "
            "pip install 'ray[serve,llm]', here and on the cluster"
        ) from error


def _text(status: Any) -> str:
    """A status of Serve's, which is an enumeration of texts."""
    return str(getattr(status, "value", status))
