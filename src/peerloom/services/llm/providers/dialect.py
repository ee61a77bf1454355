"""What a provider's HTTP interface is: pure functions between our types and its bodies, without I/O.

A provider is one module of this package. All that they have in common (connections, retries, limits,
routing) is elsewhere, and knows a dialect by this protocol only.
"""

from collections.abc import Mapping, Sequence
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


class Provider(NamedTuple):
    """Where a provider is, and which environment variables say so.

    Args:
        url: its base URL; empty if each customer has another.
        url_env: the variable that holds a base URL instead.
        key_env: the variable that holds the key.
        tail: what a base URL ends with, as messages say when nothing is there.
        dropped: what a base URL may end with and is the dialect's own to add.
    """

    url: str
    url_env: str
    key_env: str
    tail: str = ""
    dropped: str = ""


class Dialect(Protocol):
    """How one provider is spoken to. Picklable."""

    @property
    def provider(self) -> Provider:
        """Where it is."""
        ...

    @property
    def models_path(self) -> str:
        """Where the models are listed; a GET there costs nothing and says whether the server is well."""
        ...

    def model_path(self, model: str) -> str | None:
        """Where one model is described, under whatever name it goes by; None if only the list tells."""
        ...

    def listed(self, payload: Any) -> list[str] | None:
        """The models in a decoded list; None if the list does not tell which of them may be asked.

        Raises:
            MalformedBody: if `payload` is no such list.
        """
        ...

    def probe(self, model: str) -> Post:
        """A request that costs nothing: it is refused (400 or 422) where a chat would be answered."""
        ...

    @property
    def constraint(self) -> str:
        """The option by which answers are constrained, for messages; empty if that is not to be observed."""
        ...

    def alternatives(self) -> "Sequence[Dialect]":
        """The same with other ways to constrain answers, to be tried if the server ignores this one."""
        ...

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
