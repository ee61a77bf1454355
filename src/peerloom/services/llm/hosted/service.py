"""Use a model on one or more servers that are running already.

Nothing is started. A dialect encodes the requests; `providers` has the known ones.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from peerloom.errors import ConfigError
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.hosted.preflight import choose_model
from peerloom.services.llm.http.endpoint import Endpoint, HttpOptions
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.retry import Retry
from peerloom.services.processes.spawn import Spawner
from peerloom.services.secret import Secret


@dataclass(frozen=True, kw_only=True)
class CallPolicy(HttpOptions):
    """The timeouts and retries of calls to any provider."""

    retry: Retry = field(default_factory=Retry)
    """The attempts at each call."""

    def endpoint(self, base_url: str, api_key: Secret | None) -> Endpoint:
        """Return the endpoint of a server."""
        options = {each.name: getattr(self, each.name) for each in fields(HttpOptions)}
        return Endpoint(base_url=base_url, api_key=api_key, **options)


class HttpService(LLMService):
    """Servers with the same dialect and model; if one becomes unavailable, calls fail and are retried.

    Args:
        dialect: the servers' dialect.
        base_url: the URL of each replica; default the provider's environment variable, else its public URL.
        model: the model's name; default the first that the server lists.
        api_key: the key; default the provider's environment variable, else none.
        calls: the timeouts and retries of calls.

    Raises:
        ConfigError: for an invalid `base_url`, or if there is none.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        base_url: str | Sequence[str] | None = None,
        model: str | None = None,
        api_key: Secret | str | None = None,
        calls: CallPolicy | None = None,
    ) -> None:
        key = Secret(api_key) if isinstance(api_key, str) else api_key
        key = key or Secret.from_env(dialect.provider.key_env)
        self._calls = calls or CallPolicy()
        urls = addresses(dialect, base_url)
        self._dialect = dialect.for_server(urls[0])
        self._model = model
        self._endpoints = [self._calls.endpoint(url, key) for url in urls]
        self._secrets = [endpoint.secrets for endpoint in self._endpoints]  # held, so that they are masked

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Check that all servers answer and have the model.

        Raises:
            ServiceError: if the URL, the key or the model's name is wrong.
        """
        model = self._model
        for endpoint in self._endpoints:
            model = await choose_model(endpoint, self._dialect, model, notify)
        assert model is not None
        where = ", ".join(endpoint.shown() for endpoint in self._endpoints)
        notify(f"model {model} at {where}")
        return ReplicatedClientSpec(
            model=model,
            replicas=tuple(endpoint.base_url for endpoint in self._endpoints),
            backend_factory=HttpDial(self._endpoints[0], self._dialect, model),
            retry=self._calls.retry,
            provider=type(self._dialect).__module__.rpartition(".")[2],
        )


def addresses(dialect: Dialect, given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the base URLs given, else those of the environment, else the provider's.

    Raises:
        ConfigError: if there is none, or one is given twice.
    """
    provider = dialect.provider
    found = given or os.environ.get(provider.url_env) or provider.url
    if not found:
        raise ConfigError(
            f"llm.base_url is needed: set it, or {provider.url_env}, to your resource's address"
        )
    urls = [found] if isinstance(found, str) else found
    short = tuple(url.rstrip("/").removesuffix(provider.dropped) for url in urls)
    if len(set(short)) < len(short):
        raise ConfigError("llm.base_url names a server twice: give each replica once")
    return short
