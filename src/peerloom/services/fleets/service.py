"""Use a fleet of the directory in a run that neither starts nor stops it.

The driver checks the fleet's file every second and sends changed endpoint URLs to all peers. While the fleet
has no endpoint that is up, or no file, calls wait for it: the run pauses, and no task fails.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peerloom.errors import ConfigError, PeerloomError, ServiceError
from peerloom.services.fleets.adapters import adapters_of
from peerloom.services.fleets.directory import Entry, NoFleet, path_of, read
from peerloom.services.lifecycle import Moved
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.hosted.preflight import choose_model
from peerloom.services.llm.hosted.service import CallPolicy
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.llamacpp.service import llamacpp_dialect
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.processes.spawn import Spawner
from peerloom.services.secret import Secret

POLL_SECONDS = 1.0
KEY_VARIABLE = "PEERLOOM_FLEET_KEY"
"""The environment variable with the key of fleets that require one."""


class FleetService(LLMService):
    """A fleet by its name in the directory, or by the path of its file.

    Args:
        name: the fleet's name, or the path of its file.
        model: the fleet's model, or an adapter loaded there; default the model.
        api_key: the fleet's key; default `PEERLOOM_FLEET_KEY`, else none.
        calls: the timeouts and retries of calls.
        options: the options of `OpenAIDialect`; not used for llama.cpp, which has its own.

    Raises:
        ConfigError: for an invalid name.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str | None = None,
        api_key: Secret | str | None = None,
        calls: CallPolicy | None = None,
        **options: Any,
    ) -> None:
        self._path = path_of(name)
        self._name = self._path.stem
        self._model = model
        self._key = Secret(api_key) if isinstance(api_key, str) else api_key or Secret.from_env(KEY_VARIABLE)
        self._calls = calls or CallPolicy()
        self._dialect = OpenAIDialect(**options)
        self._notify: Callable[[str], None] = print
        self._spec: ReplicatedClientSpec | None = None

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Look up the fleet, and check that an endpoint answers and has the model.

        Raises:
            ServiceError: if there is no such fleet, none of its endpoints is up, or it lacks the model.
        """
        self._notify = notify
        entry = await asyncio.to_thread(read, self._path)
        if entry.key and self._key is None:
            raise ServiceError(
                f"fleet {self._name} requires a key: set {KEY_VARIABLE} to it, or llm.api_key_env"
            )
        model = self._model or entry.model
        if model not in (served := await self._models(entry)):
            raise ServiceError(f"fleet {self._name} serves {', '.join(served)}, not llm.model={model}")
        if not entry.urls:
            raise ServiceError(
                f"fleet {self._name} has no endpoint that is up; "
                f"`peerloom serve status {self._name}` shows its state"
            )
        endpoints = self._endpoints(entry)
        dialect = llamacpp_dialect() if entry.engine == "llamacpp" else self._dialect
        await self._check_any_answers(endpoints, dialect, model)
        notify(f"model {model} at fleet {self._name}, endpoints: {', '.join(entry.urls)}")
        self._spec = ReplicatedClientSpec(
            model=model,
            replicas=entry.urls,
            backend_factory=HttpDial(endpoints[0], dialect, model),
            retry=self._calls.retry,
            provider=entry.engine,
        )
        return self._spec

    async def watch(self, moved: Moved) -> None:
        """Follow changes of the fleet's file.

        Raises:
            ServiceError: if the fleet begins to serve another model.
        """
        if self._spec is None:
            await asyncio.Event().wait()
            return
        service, current, version = self._spec.service, self._spec.replicas, (0, 0, 0)
        while True:
            previous, version = version, await asyncio.to_thread(_version, self._path)
            if version != previous:
                urls = await self._urls(current)
                if urls != current:
                    moved(service, urls)
                    self._report(current, urls)
                    current = urls
            await asyncio.sleep(POLL_SECONDS)

    async def _urls(self, current: tuple[str, ...]) -> tuple[str, ...]:
        """Return the URLs of the endpoints, unchanged if the file is invalid."""
        assert self._spec is not None
        try:
            entry = await asyncio.to_thread(read, self._path)
            if self._spec.model in (served := await self._models(entry)):
                self._endpoints(entry)
                return entry.urls
        except NoFleet:
            return ()
        except PeerloomError as error:
            self._notify(f"the change of fleet {self._name} is ignored: {error}")
            return current
        raise ServiceError(
            f"fleet {self._name} now serves {', '.join(served)}, "
            f"but this run began with {self._spec.model}: "
            "start a fleet with that model, or a new run"
        )

    async def _models(self, entry: Entry) -> tuple[str, ...]:
        """Return the names that calls may use: the model's and its adapters'."""
        return (entry.model, *await asyncio.to_thread(adapters_of, self._path))

    def _report(self, before: tuple[str, ...], urls: tuple[str, ...]) -> None:
        if urls:
            self._notify(f"fleet {self._name} has {len(urls)} endpoints up: {', '.join(urls)}")
        elif before:
            self._notify(f"fleet {self._name} has no endpoint that is up; its calls wait for one")

    def _endpoints(self, entry: Entry) -> list[Endpoint]:
        try:
            return [self._calls.endpoint(url, self._key) for url in entry.urls]
        except ConfigError as error:
            raise ServiceError(f"{self._path} lists an invalid endpoint: {error}") from error

    async def _check_any_answers(self, endpoints: list[Endpoint], dialect: OpenAIDialect, model: str) -> None:
        for number, endpoint in enumerate(endpoints, 1):
            try:
                await choose_model(endpoint, dialect, model)
                return
            except ServiceError as error:
                if number == len(endpoints):
                    raise ServiceError(f"fleet {self._name}: {error}") from error


def _version(path: Path) -> tuple[int, int, int] | None:
    """Return numbers that change whenever the file is replaced or written; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
