"""What a provider's HTTP interface is: pure functions between our types and its bodies, without I/O.

A provider is one file in `dialects/`. Whatever all have in common (connections, retries, limits, routing) is
elsewhere, and knows a dialect by this protocol only.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from peerloom.errors import LLMError
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.retry import Retryable
from peerloom.services.secret import Secret


class Post(NamedTuple):
    """One request to be sent: the path below the base URL, the body, and headers of its own."""

    path: str
    body: bytes
    headers: dict[str, str]


class MalformedBody(Exception):
    """A body that is no answer to what was asked."""


class Dialect(Protocol):
    """How one provider is spoken to. Picklable."""

    def auth(self, key: Secret) -> dict[str, str]:
        """The headers that carry the key."""
        ...

    def chat(self, request: ChatRequest, model: str) -> Post:
        """The HTTP request that asks for `request`.

        Raises:
            LLMRejected: if this provider has no way to ask for it.
        """
        ...

    def reply(self, payload: Any, request: ChatRequest, seconds: float) -> ChatReply:
        """The reply in a decoded body of status 200.

        Raises:
            MalformedBody: if `payload` is not shaped like one.
            ContentFiltered: if the provider withheld the reply.
        """
        ...

    def embed(self, request: EmbedRequest, model: str) -> Post:
        """The HTTP request that asks for vectors.

        Raises:
            LLMRejected: if this provider has no embeddings.
        """
        ...

    def vectors(self, payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
        """The vectors in a decoded body of status 200.

        Raises:
            MalformedBody: if `payload` holds no such thing.
        """
        ...

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Retryable | LLMError:
        """What an answer of another status means. `now` is Unix time, for Retry-After."""
        ...
