"""Define the interface of dialects: pure functions between Peerloom's types and a provider's HTTP bodies.

Each provider is a module of this package. Connections, retries, limits and routing are common to all; that
code uses a dialect only through this protocol. A subclass inherits its defaults.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from peerloom.errors import LLMError, LLMRejected
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.payloads import MalformedBody
from peerloom.services.secret import Secret


class Post(NamedTuple):
    """A request: the path below the base URL, the body, and additional headers."""

    path: str
    body: bytes
    headers: dict[str, str]


class Provider(NamedTuple):
    """The URL of a provider, and its environment variables."""

    url: str
    """The base URL; empty if each customer has another."""
    url_env: str
    """The environment variable of the base URL."""
    key_env: str
    """The environment variable of the key."""
    tail: str = ""
    """The usual end of a base URL, suggested in messages if the server is not found."""
    dropped: str = ""
    """The end removed from a base URL, since the dialect adds it."""


class Dialect(Protocol):
    """The encoding of one provider's requests and replies. Picklable."""

    provider: ClassVar[Provider]
    """The URL of the provider, and its environment variables."""

    def for_server(self, base_url: str) -> "Dialect":
        """Return the dialect of the server at this URL, by default this one."""
        return self

    @property
    def models_path(self) -> str:
        """The path of the list of models; a GET there is free and serves as a health check."""
        ...

    def model_path(self, model: str) -> str | None:
        """Return the path of a model's entry, under any of its names; None if there is only a list."""
        ...

    def listed(self, payload: Any) -> list[str] | None:
        """Return the models in a decoded list; None if the list does not show which of them accept calls.

        Raises:
            MalformedBody: if `payload` is not such a list.
        """
        ...

    def probe(self, model: str) -> Post:
        """Return a free request, refused with 400 or 422 by a server that would answer a chat."""
        ...

    @property
    def constraint(self) -> str:
        """The option that constrains replies, for messages; empty if its effect is not observed."""
        return ""

    def alternatives(self) -> "Sequence[Dialect]":
        """Return dialects with other options to constrain replies, tried if the server ignores this one."""
        return ()

    def auth(self, key: Secret) -> dict[str, str]:
        """Return the headers with the key."""
        ...

    def chat(self, request: ChatRequest, model: str) -> Post:
        """Return the HTTP request for a chat.

        Raises:
            LLMRejected: if this provider does not support it.
        """
        ...

    def reply(self, payload: Any, request: ChatRequest, seconds: float) -> ChatReply:
        """Return the reply in a decoded body of status 200.

        Raises:
            MalformedBody: if `payload` is not a reply.
            ContentFiltered: if the provider withheld the reply.
        """
        ...

    def embed(self, request: EmbedRequest, model: str) -> Post:
        """Return the HTTP request for embeddings; by default there are none.

        Raises:
            LLMRejected: if this provider has no embeddings.
        """
        name = type(self).__name__.removesuffix("Dialect")
        raise LLMRejected(f"{name} has no embeddings: use another service for them")

    def vectors(self, payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
        """Return the vectors in a decoded body of status 200.

        Raises:
            MalformedBody: if `payload` has no such vectors.
        """
        raise MalformedBody("this provider has no embeddings")

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Retryable | LLMError:
        """Return the error for an answer of another status. `now` is Unix time, for Retry-After."""
        ...
