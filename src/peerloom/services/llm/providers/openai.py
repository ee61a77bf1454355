"""Encode and decode OpenAI's chat completions and embeddings.

Most servers implement them: vLLM, SGLang, llama.cpp, and gateways.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Self, cast

import orjson
from yarl import URL

from peerloom.errors import LLMError
from peerloom.options import FREE, SAME, Options
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.providers.dialect import Post, Provider
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.chat import Structured, given, to_body, to_reply, to_vectors, wraps
from peerloom.services.llm.wire_format.failures import failure_of
from peerloom.services.llm.wire_format.payloads import MalformedBody
from peerloom.services.secret import Secret

OPENAI = Provider("https://api.openai.com/v1", "OPENAI_BASE_URL", "OPENAI_API_KEY", tail="/v1")

Shape = Callable[[dict[str, Any], ChatRequest], dict[str, Any]]
"""A function that adapts a body to a server's own fields: `shape(body, request)` returns the body to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIDialect(Options):
    """The dialect of OpenAI-compatible servers."""

    provider: ClassVar[Provider] = OPENAI

    structured: Annotated[Structured, FREE] = "auto"
    """The option by which choices and schemas are passed to the server."""
    extra_body: Annotated[dict[str, Any], SAME] = field(default_factory=dict[str, Any])
    """Additional keys of every body."""
    limit_field: str = "max_tokens"
    """The server's name of the token limit; OpenAI refuses the name that all other servers use."""
    shape: Shape | None = None
    """The last change to each body; a module-level function, since this is pickled."""

    def for_server(self, base_url: str) -> Self:
        """Return the dialect with the server's name of the token limit."""
        is_openai = (URL(base_url).host or "").endswith((".openai.com", ".openai.azure.com"))
        return replace(self, limit_field="max_completion_tokens") if is_openai else self

    @property
    def models_path(self) -> str:
        """The path of the list of models."""
        return "/models"

    def model_path(self, model: str) -> str | None:
        """Return None: few servers describe single models."""
        return None

    def listed(self, payload: Any) -> list[str] | None:
        """Return the ids of the models."""
        return ids_in(payload)

    def probe(self, model: str) -> Post:
        """Return a chat request without messages."""
        return Post("/chat/completions", b"{}", {})

    @property
    def constraint(self) -> str:
        """The field of the body that constrains replies."""
        return {"none": "", "choice": "structured_outputs"}.get(self.structured, "response_format")

    def alternatives(self) -> tuple[Self, ...]:
        """Return the dialect with vLLM's option for choices instead of OpenAI's, or the reverse."""
        if self.structured == "none":
            return ()
        return (replace(self, structured="json_schema" if self.structured == "choice" else "choice"),)

    def auth(self, key: Secret) -> dict[str, str]:
        """Return the header with a bearer token."""
        return {"Authorization": f"Bearer {key.reveal()}"}

    def chat(self, request: ChatRequest, model: str) -> Post:
        """Return a chat completion request, with the session in a header for routers with prefix affinity."""
        body = to_body(request, model, self.structured, self.limit_field)
        body.update(self.extra_body)
        if self.shape is not None:
            body = self.shape(body, request)
        headers = {"X-Session-ID": request.session} if request.session else {}
        return Post("/chat/completions", orjson.dumps(body), headers)

    def reply(self, payload: Any, request: ChatRequest, seconds: float) -> ChatReply:
        """Return the reply in a body, see `to_reply`."""
        return to_reply(payload, request, wrapped=wraps(request, self.structured), seconds=seconds)

    def embed(self, request: EmbedRequest, model: str) -> Post:
        """Return an embedding request."""
        body: dict[str, Any] = {"model": model, "input": list(request.texts), "encoding_format": "float"}
        body |= given(dimensions=request.dimensions)
        return Post("/embeddings", orjson.dumps(body), {})

    def vectors(self, payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
        """Return the vectors in a body, see `to_vectors`."""
        return to_vectors(payload, request, seconds)

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Retryable | LLMError:
        """Return the error for an answer, see `failure_of`."""
        return failure_of(status, headers, body, now)


DIALECT = OpenAIDialect


def ids_in(payload: Any) -> list[str]:
    """Return the ids in a list of models in OpenAI's form.

    Raises:
        MalformedBody: if `payload` is not such a list.
    """
    try:
        return [cast("str", item["id"]) for item in payload["data"]]
    except (KeyError, IndexError, TypeError) as error:
        raise MalformedBody("it has no data[].id") from error
