"""Use one or more OpenAI-compatible servers that are running already."""

from collections.abc import Mapping, Sequence
from typing import Any

from yarl import URL

from peerloom.services.llm.hosted.service import CallPolicy, HttpService, addresses
from peerloom.services.llm.http.endpoint import Http
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.wire_format.chat import Structured
from peerloom.services.secret import Secret


class OpenAIService(HttpService):
    """Servers that implement OpenAI's chat completions; nothing is started.

    Args:
        base_url: the URL of each replica, including `/v1`; default `OPENAI_BASE_URL`, else OpenAI's.
        model: the model's name; default the first that the server lists.
        api_key: the key; default `OPENAI_API_KEY`, else none.
        timeout: see `Endpoint`.
        connect_timeout: see `Endpoint`.
        retry: see `ReplicatedClientSpec`.
        http: see `Endpoint`.
        structured: see `OpenAIDialect`.
        extra_body: see `OpenAIDialect`.

    Raises:
        ConfigError: for an invalid `base_url` or `structured`.
    """

    def __init__(  # noqa: PLR0913 - one parameter per setting
        self,
        *,
        base_url: str | Sequence[str] | None = None,
        model: str | None = None,
        api_key: Secret | str | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        retry: Retry | None = None,
        http: Http = "auto",
        structured: Structured = "auto",
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        first = addresses(OpenAIDialect(), base_url)[0]
        dialect = OpenAIDialect(
            structured=structured, limit_field=limit_field(first), extra_body=dict(extra_body or {})
        )
        calls = CallPolicy(
            timeout=timeout, connect_timeout=connect_timeout, retry=retry or Retry(), http=http
        )
        super().__init__(dialect, base_url=base_url, model=model, api_key=api_key, calls=calls)


def limit_field(base_url: str) -> str:
    """Return the server's name of the token limit; OpenAI refuses the name that all other servers use."""
    is_openai = (URL(base_url).host or "").endswith((".openai.com", ".openai.azure.com"))
    return "max_completion_tokens" if is_openai else "max_tokens"
