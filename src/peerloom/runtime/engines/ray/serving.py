"""Run a fleet as an application of Ray Serve LLM: vLLM behind OpenAI's protocol.

Ray keeps the replicas alive, scales them with the calls, and routes the calls. This module watches the
application, and lists the nodes on which Serve's proxies answer.

Serve and Ray start a new cluster when they are called in a process that is not connected. Therefore each call
is made in a thread that ends before the process disconnects, and no call waits long.
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
from peerloom.runtime.engines.ray.serve_app import FAILED, RUNNING, RayServeFleet, messages, text, too_large
from peerloom.services.fleets.directory import Listed

CHECK_SECONDS = 5.0
MAX_FAILED_CHECKS = 6
"""Consecutive checks without an answer of Ray after which the fleet counts as lost."""

DEPLOYING_SECONDS = 1.0
"""The interval between two checks of an application that is being deployed."""

_TELEMETRY = "llm_serve_telemetry"

T = TypeVar("T")


class RayServing:
    """Runs an application, as `fleets.supervisor.Serving`. Its name is the first part of its URL's path."""

    def __init__(self, connect: Callable[[], Awaitable[None]], app: str, options: RayServeFleet) -> None:
        self._connect = connect
        self._app = app
        self._options = options
        self._listed: tuple[Listed, ...] = ()
        self._step: asyncio.Future[Any] | None = None
        self._stopping = False
        self._deployed = False
        self._serve_is_ours = False

    async def start(self, tell: Callable[[str], None], log_dir: Path) -> None:
        """Deploy the application, and wait until it is running.

        Raises:
            ServiceError: if Ray cannot be used or lacks Serve LLM, or the application does not come up.
        """
        await self._uninterrupted(self._connect())
        serve = await self._in_thread(_module, "ray.serve")
        llm = await self._in_thread(_module, "ray.serve.llm")
        tell(f"Ray Serve deploys {self._options.model}; its own logs are in Ray's dashboard")
        try:
            await self._in_thread(self._deploy, serve, llm)
            await self._until_running(serve, tell)
            self._listed = await self._in_thread(self._list_proxies, serve)
        except ServiceError:
            raise
        except Exception as error:  # an invalid model or configuration may raise any
            raise self._failed(reason(error)) from error

    async def watch(self, changed: Callable[[], None]) -> None:
        """Check periodically where the application answers, and call `changed` if that changes.

        Raises:
            ServiceError: if the application or Ray is gone.
        """
        serve, failed_checks = _module("ray.serve"), 0
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                listed = await self._in_thread(self._list_proxies, serve)
                failed_checks = 0
            except (RayError, RuntimeError, ConnectionError, TimeoutError) as error:
                failed_checks += 1
                if failed_checks >= MAX_FAILED_CHECKS:
                    missing = f"Ray did not report the state of {self._app} in {failed_checks} checks"
                    raise ServiceError(f"{missing}: {reason(error)}") from error
                continue
            if listed != self._listed:
                self._listed = listed
                changed()

    def listed(self) -> Sequence[Listed]:
        """Return an entry for each node with a proxy."""
        return self._listed

    async def stop(self) -> None:
        """Delete the application, and Serve if it was started for it. Idempotent; may be called at any time.

        Raises:
            ServiceError: if Ray Serve does not delete it.
        """
        self._stopping = True
        self._listed = ()
        if self._step is not None:
            await asyncio.wait([self._step])
        try:
            if self._deployed:
                self._deployed = False
                await asyncio.to_thread(_delete, self._app, self._serve_is_ours)
        finally:
            await asyncio.to_thread(stop)

    async def _in_thread(self, call: Callable[..., T], *args: Any) -> T:
        return await self._uninterrupted(asyncio.to_thread(call, *args))

    async def _uninterrupted(self, call: Awaitable[T]) -> T:
        """Await a call that a cancellation does not interrupt; `stop` waits for its end."""
        self._step = asyncio.ensure_future(call)
        self._step.add_done_callback(lambda step: step.cancelled() or step.exception())
        return await asyncio.shield(self._step)

    def _deploy(self, serve: Any, llm: Any) -> None:
        if self._stopping:
            return
        app = llm.build_openai_app({"llm_configs": [llm.LLMConfig(**self._options.config())]})
        there = serve.status()
        self._deployed, self._serve_is_ours = True, not (there.proxies or there.applications)
        serve.start(proxy_location="EveryNode", http_options={"host": "0.0.0.0", "port": self._options.port})
        if self._stopping:
            return
        target = serve.RunTarget(target=app, name=self._app, route_prefix=f"/{self._app}")
        serve.run_many([target], wait_for_applications_running=False)

    async def _until_running(self, serve: Any, tell: Callable[[str], None]) -> None:
        """Wait until the application is running, and pass on the messages of Serve."""
        last_message, fitted = "", time.monotonic()
        while True:
            status = await self._in_thread(serve.status)
            overview = status.applications.get(self._app)
            if overview is None:
                raise self._failed("the application was deleted while it was being deployed")
            state, message = text(overview.status), messages(overview)
            if state == RUNNING:
                return
            if state == FAILED:
                raise self._failed(message)
            if message and message != last_message:
                tell(last_message := message)
            lacking = await self._in_thread(self._lacking)
            fitted = fitted if lacking else time.monotonic()
            if time.monotonic() - fitted >= self._options.placement_seconds:
                raise self._failed("\n".join(filter(None, (lacking, message))))
            await asyncio.sleep(DEPLOYING_SECONDS)

    def _lacking(self) -> str:
        if not self._options.min_replicas:
            return ""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        lacking, seconds = too_large(self._options.bundles(), nodes), self._options.placement_seconds
        return lacking and (
            f"no replica can be placed: {lacking}, and none was added in {seconds:g} s. "
            "Ask for less with placement_group_config (without GPUs: "
            "'placement_group_config={bundles: [{CPU: 1}]}'), add nodes, or wait longer (placement_seconds)"
        )

    def _failed(self, why: str) -> ServiceError:
        return ServiceError(f"Ray Serve did not bring up {self._options.model}: {why}")

    def _list_proxies(self, serve: Any) -> tuple[Listed, ...]:
        status = serve.status()
        overview = status.applications.get(self._app)
        if overview is None or text(overview.status) == FAILED:
            why = "it was deleted" if overview is None else messages(overview)
            raise ServiceError(f"the application {self._app} is gone from Ray Serve: {why}")
        up = text(overview.status) == RUNNING
        hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        healthy: dict[str, bool] = {}  # by host, since several nodes may share an address and port
        for node, proxy in sorted(status.proxies.items()):
            if (host := hosts.get(node)) is not None:
                healthy[host] = healthy.get(host, False) or (up and text(proxy) == "HEALTHY")
        return tuple(
            Listed(
                url=f"http://{host}:{self._options.port}/{self._app}/v1",
                state="up" if is_healthy else "restarting",
                place=host,
            )
            for host, is_healthy in healthy.items()
        )


def delete(address: str | None, app: str) -> None:
    """Delete an application whose supervisor is gone, if its cluster still exists. Blocks.

    Raises:
        ServiceError: if Ray cannot be reached.
    """
    where = cluster_address(address)
    if where is None:
        return  # the supervisor's own cluster ended with it
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
    """Delete an application, and with `with_serve` an idle Serve. Blocks for a minute at most."""
    serve = _module("ray.serve")
    try:
        if not ray.is_initialized():
            raise ConnectionError("the connection to the cluster is lost")
        if app in serve.status().applications:
            serve.delete(app)
        if with_serve and not serve.status().applications:
            serve.shutdown()
            _end_telemetry()
    except Exception as error:  # Serve raises a bare Exception too
        raise ServiceError(f"Ray Serve did not delete the application {app}: {reason(error)}") from error


def _end_telemetry() -> None:
    """Kill the actor that Serve LLM starts for its statistics and does not end."""
    try:
        ray.kill(ray.get_actor(_TELEMETRY, namespace=_TELEMETRY))
    except ValueError:
        pass  # it does not exist


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ServiceError(
            f"engine=ray-serve needs {name}, which cannot be imported ({error}): "
            "pip install 'ray[serve,llm]', here and on the cluster"
        ) from error
