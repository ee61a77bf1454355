"""A fleet that is an application of Ray Serve LLM: vLLM, scaled and routed by Ray, behind OpenAI's protocol.

Ray keeps its replicas alive and adds or takes some away as calls come; what is watched here is the
application, and on which nodes Serve's proxies answer.

Serve and Ray start a cluster of their own when they are called in a process that is not connected. So each
call is made in a thread that is waited for before the process disconnects, and none of them waits long.
"""

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from peerloom.errors import EngineError, ServiceError
from peerloom.runtime.engines.ray.api import RayError, ray
from peerloom.runtime.engines.ray.cluster import cluster_address, connect, reason, stop
from peerloom.runtime.engines.ray.serve_app import FAILED, RUNNING, ServeApp, messages, text, too_large
from peerloom.services.fleets.directory import Listed

LOOK_SECONDS = 5.0
LOOKS = 6
"""So many looks in a row at which Ray does not answer, and the fleet is taken for lost."""

DEPLOYING_SECONDS = 1.0
"""Between two looks at an application that is being deployed."""

_TELEMETRY = "llm_serve_telemetry"

T = TypeVar("T")


class RayServing:
    """Keeps the application `app`, see `fleets.keeper.Serving`; `connect` connects this process to Ray."""

    def __init__(self, connect: Callable[[], Awaitable[None]], app: ServeApp) -> None:
        self._connect = connect
        self._app = app
        self._listed: tuple[Listed, ...] = ()
        self._step: asyncio.Future[Any] | None = None
        self._stopping = False
        self._begun = False
        self._serve_is_ours = False

    async def start(self, tell: Callable[[str], None], log_dir: Path) -> None:
        """Deploy the application, and wait until it runs.

        Raises:
            ServiceError: if Ray cannot be used or lacks Serve LLM, or the application does not come up.
        """
        await self._uninterrupted(self._connect())
        serve = await self._in_thread(_module, "ray.serve")
        llm = await self._in_thread(_module, "ray.serve.llm")
        tell(f"Ray Serve deploys {self._app.model}; its own logs are in Ray's dashboard")
        try:
            await self._in_thread(self._deploy, serve, llm)
            await self._until_running(serve, tell)
            self._listed = await self._in_thread(self._look, serve)
        except ServiceError:
            raise
        except Exception as error:  # what is wrong with a model or its configuration may raise anything
            raise self._failed(reason(error)) from error

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look now and then where the application answers.

        Raises:
            ServiceError: if it is gone, or Ray is.
        """
        serve, silent = _module("ray.serve"), 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                listed = await self._in_thread(self._look, serve)
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
        """Delete the application, and Serve if it was started for it. May be called at any time, and twice.

        Raises:
            ServiceError: if Ray Serve does not delete it.
        """
        self._stopping = True
        self._listed = ()
        if self._step is not None:
            await asyncio.wait([self._step])
        try:
            if self._begun:
                self._begun = False
                await asyncio.to_thread(_delete, self._app.app, self._serve_is_ours)
        finally:
            await asyncio.to_thread(stop)

    async def _in_thread(self, call: Callable[..., T], *args: Any) -> T:
        return await self._uninterrupted(asyncio.to_thread(call, *args))

    async def _uninterrupted(self, call: Awaitable[T]) -> T:
        """Await what goes on if this is cancelled, and is then waited for by `stop`."""
        self._step = asyncio.ensure_future(call)
        self._step.add_done_callback(lambda step: step.cancelled() or step.exception())
        return await asyncio.shield(self._step)

    def _deploy(self, serve: Any, llm: Any) -> None:
        if self._stopping:
            return
        app = llm.build_openai_app({"llm_configs": [llm.LLMConfig(**self._app.config())]})
        there = serve.status()
        self._begun, self._serve_is_ours = True, not (there.proxies or there.applications)
        serve.start(proxy_location="EveryNode", http_options={"host": "0.0.0.0", "port": self._app.port})
        if self._stopping:
            return
        name = self._app.app
        target = serve.RunTarget(target=app, name=name, route_prefix=f"/{name}")
        serve.run_many([target], wait_for_applications_running=False)

    async def _until_running(self, serve: Any, tell: Callable[[str], None]) -> None:
        """Wait, telling what Serve says meanwhile.

        Raises:
            ServiceError: if the application fails, is deleted, or finds no node that could ever hold it.
        """
        told, fitted = "", time.monotonic()
        while True:
            status = await self._in_thread(serve.status)
            overview = status.applications.get(self._app.app)
            if overview is None:
                raise self._failed("somebody deleted the application while it was being deployed")
            state, said = text(overview.status), messages(overview)
            if state == RUNNING:
                return
            if state == FAILED:
                raise self._failed(said)
            if said and said != told:
                tell(told := said)
            lacking = await self._in_thread(self._lacking)
            fitted = fitted if lacking else time.monotonic()
            if time.monotonic() - fitted >= self._app.placement_seconds:
                raise self._failed("\n".join(filter(None, (lacking, said))))
            await asyncio.sleep(DEPLOYING_SECONDS)

    def _lacking(self) -> str:
        if not self._app.min_replicas:
            return ""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        lacking = too_large(self._app.bundles(), nodes)
        return lacking and (
            f"no replica can be placed: {lacking}, and none was added in {self._app.placement_seconds:g} s. "
            "Ask for less with placement_group_config (without GPUs: "
            "'placement_group_config={bundles: [{CPU: 1}]}'), add nodes, or wait longer (placement_seconds)"
        )

    def _failed(self, why: str) -> ServiceError:
        return ServiceError(f"Ray Serve did not bring up {self._app.model}: {why}")

    def _look(self, serve: Any) -> tuple[Listed, ...]:
        status = serve.status()
        overview = status.applications.get(self._app.app)
        if overview is None or text(overview.status) == FAILED:
            why = "it was deleted" if overview is None else messages(overview)
            raise ServiceError(f"the application {self._app.app} is gone from Ray Serve: {why}")
        up = text(overview.status) == RUNNING
        hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        well: dict[str, bool] = {}  # several nodes may share an address, and a port with it
        for node, proxy in sorted(status.proxies.items()):
            if (host := hosts.get(node)) is not None:
                well[host] = well.get(host, False) or (up and text(proxy) == "HEALTHY")
        return tuple(
            Listed(
                url=f"http://{host}:{self._app.port}/{self._app.app}/v1",
                state="up" if is_well else "restarting",
                place=host,
            )
            for host, is_well in well.items()
        )


def delete(address: str | None, app: str) -> None:
    """Delete an application whose keeper is gone; blocks. Without a cluster there is none to delete.

    Raises:
        ServiceError: if Ray cannot be reached.
    """
    where = cluster_address(address)
    if where is None:
        return  # the keeper's own cluster has ended with it
    try:
        connect(where)
        _delete(app, with_serve=False)
    except EngineError as error:
        raise ServiceError(
            f"Ray Serve could not be asked to delete the application {app}: {error}. "
            "If that cluster has ended, the application has too"
        ) from error
    finally:
        stop()


def _delete(app: str, with_serve: bool) -> None:
    """Delete an application, and Serve itself if it has no other; blocks for a minute at most.

    Raises:
        ServiceError: if that fails.
    """
    serve = _module("ray.serve")
    try:
        if not ray.is_initialized():
            raise ConnectionError("the connection to the cluster is lost")
        if app in serve.status().applications:
            serve.delete(app)
        if with_serve and not serve.status().applications:
            serve.shutdown()
            _end_telemetry()
    except Exception as error:  # Serve raises bare ones too
        raise ServiceError(f"Ray Serve did not delete the application {app}: {reason(error)}") from error


def _end_telemetry() -> None:
    """Kill the actor that Serve LLM starts for its statistics and does not end."""
    try:
        ray.kill(ray.get_actor(_TELEMETRY, namespace=_TELEMETRY))
    except ValueError:
        pass  # there is none


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ServiceError(
            f"engine=ray-serve needs {name}, which cannot be imported ({error}): "
            "pip install 'ray[serve,llm]', here and on the cluster"
        ) from error
