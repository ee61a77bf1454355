"""Any OpenAI-compatible server, or several with the same model, that somebody else runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from yarl import URL

from peerloom.services.llm.hosted.service import CallPolicy, HttpService, addresses
from peerloom.services.llm.http.endpoint import Http
from peerloom.services.llm.providers.openai import OPENAI, OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.wire_format.chat import Structured
from peerloom.services.secret import Secret

OPENAI_URL = OPENAI.url


class OpenAIService(HttpService):
    """Servers that speak OpenAI's chat completions; nothing is started.

    Args:
        base_url: up to and including `/v1`, of each replica; default `OPENAI_BASE_URL`, else OpenAI itself.
        model: default the first that the server lists.
        api_key: default `OPENAI_API_KEY`, else none.
        timeout: see `Endpoint`.
        connect_timeout: see `Endpoint`.
        retry: see `ReplicatedClientSpec`.
        http: see `Endpoint`.
        structured: see `OpenAIDialect`.
        extra_body: see `OpenAIDialect`.

    Raises:
        ConfigError: for an impossible `base_url` or `structured`.
    """

    def __init__(  # noqa: PLR0913 - as many as there are things to say
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
    """What the server calls the token limit; OpenAI itself refuses the name everybody else reads."""
    theirs = (URL(base_url).host or "").endswith((".openai.com", ".openai.azure.com"))
    return "max_completion_tokens" if theirs else "max_tokens"
