"""Any OpenAI-compatible server, or several with the same model, that somebody else runs."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peerloom.errors import ConfigError
from peerloom.services.llm.dialects.openai import OpenAIDialect
from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.fleet import FleetSpec
from peerloom.services.llm.http import HttpDial
from peerloom.services.llm.preflight import choose_model
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.wire import Structured
from peerloom.services.secret import Secret
from peerloom.services.spawn import Spawner

OPENAI_URL = "https://api.openai.com/v1"


class OpenAIService:
    """Servers that speak OpenAI's chat completions; nothing is started.

    Args:
        base_url: up to and including `/v1`, of each replica; default `OPENAI_BASE_URL`, else OpenAI itself.
        model: default the first that the server lists.
        api_key: default `OPENAI_API_KEY`, else none.
        timeout: see `Endpoint`.
        connect_timeout: see `Endpoint`.
        retry: see `FleetSpec`.
        structured: see `OpenAIDialect`.
        extra_body: see `OpenAIDialect`.

    Raises:
        ConfigError: for an impossible `base_url` or `structured`.
    """

    def __init__(
        self,
        *,
        base_url: str | Sequence[str] | None = None,
        model: str | None = None,
        api_key: Secret | str | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        retry: Retry | None = None,
        structured: Structured = "auto",
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        given = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        urls = (given,) if isinstance(given, str) else tuple(given)
        if len(set(urls)) < len(urls):
            raise ConfigError("llm.base_url names a server twice: each is a replica of its own")
        key = Secret(api_key) if isinstance(api_key, str) else api_key
        self._model = model
        self._endpoints = [
            Endpoint(
                base_url=url,
                api_key=key or Secret.from_env("OPENAI_API_KEY"),
                timeout=timeout,
                connect_timeout=connect_timeout,
            )
            for url in urls
        ]
        self._dialect = OpenAIDialect(
            structured=structured,
            limit_field=limit_field(self._endpoints[0]),
            extra_body=dict(extra_body or {}),
        )
        self._retry = retry or Retry()

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> FleetSpec:
        """Check that all servers answer and have the model.

        Raises:
            ServiceError: saying what is wrong: the address, the key or the model's name.
        """
        model = self._model
        for endpoint in self._endpoints:
            model = await choose_model(endpoint, self._dialect, model)
        assert model is not None
        where = ", ".join(endpoint.shown() for endpoint in self._endpoints)
        notify(f"model {model} at {where}")
        return FleetSpec(
            model=model,
            replicas=tuple(endpoint.base_url for endpoint in self._endpoints),
            dial=HttpDial(self._endpoints[0], self._dialect, model),
            retry=self._retry,
        )

    async def watch(self, moved: Callable[[str, Sequence[str]], None]) -> None:
        """Wait for ever: a server run by others that goes away shows in the calls, and may come back."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to stop."""


def limit_field(endpoint: Endpoint) -> str:
    """What the server calls the token limit; OpenAI itself refuses the name everybody else reads."""
    theirs = (endpoint.url("").host or "").endswith((".openai.com", ".openai.azure.com"))
    return "max_completion_tokens" if theirs else "max_tokens"
