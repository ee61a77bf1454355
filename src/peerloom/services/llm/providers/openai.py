"""OpenAI's chat completions and embeddings, which most servers speak: vLLM, SGLang, llama.cpp, gateways."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self, cast

import orjson

from peerloom.errors import LLMError
from peerloom.options import FREE, SAME, Options
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.providers.dialect import Post, Provider
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.chat import Structured, to_body, to_reply, to_vectors, wraps
from peerloom.services.llm.wire_format.failures import failure_of
from peerloom.services.llm.wire_format.payloads import MalformedBody
from peerloom.services.secret import Secret

OPENAI = Provider("https://api.openai.com/v1", "OPENAI_BASE_URL", "OPENAI_API_KEY", tail="/v1")

Shape = Callable[[dict[str, Any], ChatRequest], dict[str, Any]]
"""Changes a body for a server with fields of its own: `shape(body, request)` returns what is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIDialect(Options):
    """How an OpenAI-compatible server is asked."""

    structured: Annotated[Structured, FREE] = "auto"
    """How choices and schemas are asked of the server."""
    extra_body: Annotated[dict[str, Any], SAME] = field(default_factory=dict[str, Any])
    """Further keys of every body, as the server understands them."""
    limit_field: str = "max_tokens"
    """What the server calls the token limit; OpenAI itself refuses the name others read."""
    shape: Shape | None = None
    """Last change to each body; a module-level function, since this is pickled."""

    @property
    def provider(self) -> Provider:
        """OpenAI, unless another address is given."""
        return OPENAI

    @property
    def models_path(self) -> str:
        """Which most servers have."""
        return "/models"

    def model_path(self, model: str) -> str | None:
        """Few servers describe a single one."""
        return None

    def listed(self, payload: Any) -> list[str] | None:
        """The ids."""
        return ids_in(payload)

    def probe(self, model: str) -> Post:
        """A chat without messages."""
        return Post("/chat/completions", b"{}", {})

    @property
    def constraint(self) -> str:
        """The field of the body that it goes by."""
        return {"none": "", "choice": "structured_outputs"}.get(self.structured, "response_format")

    def alternatives(self) -> tuple[Self, ...]:
        """VLLM's own way for choices if OpenAI's was asked for, and the other way round."""
        if self.structured == "none":
            return ()
        return (replace(self, structured="json_schema" if self.structured == "choice" else "choice"),)

    def auth(self, key: Secret) -> dict[str, str]:
        """A bearer token."""
        return {"Authorization": f"Bearer {key.reveal()}"}

    def chat(self, request: ChatRequest, model: str) -> Post:
        """A chat completion; the session goes along, for routers that keep one where its prefix is cached."""
        body = to_body(request, model, self.structured, self.limit_field)
        body.update(self.extra_body)
        if self.shape is not None:
            body = self.shape(body, request)
        headers = {"X-Session-ID": request.session} if request.session else {}
        return Post("/chat/completions", orjson.dumps(body), headers)

    def reply(self, payload: Any, request: ChatRequest, seconds: float) -> ChatReply:
        """See `wire.to_reply`."""
        return to_reply(payload, request, wrapped=wraps(request, self.structured), seconds=seconds)

    def embed(self, request: EmbedRequest, model: str) -> Post:
        """The vectors of some texts."""
        body: dict[str, Any] = {"model": model, "input": list(request.texts), "encoding_format": "float"}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        return Post("/embeddings", orjson.dumps(body), {})

    def vectors(self, payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
        """See `wire.to_vectors`."""
        return to_vectors(payload, request, seconds)

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Retryable | LLMError:
        """See `failures.failure_of`."""
        return failure_of(status, headers, body, now)


DIALECT = OpenAIDialect


def ids_in(payload: Any) -> list[str]:
    """The ids in a list of models, as OpenAI and others send it.

    Raises:
        MalformedBody: if it is none.
    """
    try:
        return [cast("str", item["id"]) for item in payload["data"]]
    except (KeyError, IndexError, TypeError) as error:
        raise MalformedBody("it has no data[].id") from error
