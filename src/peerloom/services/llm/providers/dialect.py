"""Define the interface of dialects: pure functions between Peerloom's types and a provider's HTTP bodies.

Each provider is a module of this package. Connections, retries, limits and routing are common to all; that
code uses a dialect only through this protocol.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from peerloom.errors import LLMError
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.retry import Retryable
from peerloom.services.secret import Secret


class Post(NamedTuple):
    """A request: the path below the base URL, the body, and additional headers."""

    path: str
    body: bytes
    headers: dict[str, str]


class Provider(NamedTuple):
    """The URL of a provider, and its environment variables.

    Args:
        url: the base URL; empty if each customer has another.
        url_env: the environment variable of the base URL.
        key_env: the environment variable of the key.
        tail: the usual end of a base URL, suggested in messages if the server is not found.
        dropped: the end removed from a base URL, since the dialect adds it.
    """

    url: str
    url_env: str
    key_env: str
    tail: str = ""
    dropped: str = ""


class Dialect(Protocol):
    """The encoding of one provider's requests and replies. Picklable."""

    @property
    def provider(self) -> Provider:
        """The URL of the provider, and its environment variables."""
        ...

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
        ...

    def alternatives(self) -> "Sequence[Dialect]":
        """Return dialects with other options to constrain replies, tried if the server ignores this one."""
        ...

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
        """Return the HTTP request for embeddings.

        Raises:
            LLMRejected: if this provider has no embeddings.
        """
        ...

    def vectors(self, payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
        """Return the vectors in a decoded body of status 200.

        Raises:
            MalformedBody: if `payload` has no such vectors.
        """
        ...

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Retryable | LLMError:
        """Return the error for an answer of another status. `now` is Unix time, for Retry-After."""
        ...
