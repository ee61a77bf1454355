"""Define the requests, replies and client protocols of language models.

A service has two halves. The *service* belongs to the driver: it starts the server processes that a model
needs and describes how to reach them. The *client* runs in each peer's event loop and answers calls. The
simulated, scripted and real services share these types.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from peerloom.task import Usage


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat call. `messages` are OpenAI chat messages; image and audio parts pass through unchanged.

    `choices`, if any, are the only replies allowed; `schema` is a JSON schema the reply must follow;
    at most one of the two is set. `tools` are OpenAI function tools; `tool_choice` is `auto`, `none`,
    `required` or the name of a tool. `top_logprobs` requests the log-probability of each token and of that
    many alternatives. `seed` makes the reply reproducible if the server supports it.

    `session` names the conversation and `role` the calling agent. Services use them to route a call to the
    replica that has its prefix cached, and to share quota fairly between agents. The runtime fills them in if
    they are empty.
    """

    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str = ""
    top_logprobs: int | None = None
    seed: int | None = None
    session: str = ""
    role: str = ""


class ChatReply(msgspec.Struct, frozen=True, kw_only=True):
    """A chat reply. `finish_reason` is OpenAI's: `stop`, `length`, `content_filter`, `tool_calls`.

    `message` is the reply as an OpenAI chat message, `text` its content, `reasoning` the model's reasoning
    before the content, and `tool_calls` the requested function calls in OpenAI's format. `logprobs` holds
    OpenAI's record for each token; `token_ids` are the reply's tokens, if the server returns them.
    `fingerprint` identifies the revision of the model that was served, as far as the server says.
    `usage.calls` is 1, `tries` counts the attempts, and `seconds` is the duration of the successful one. A
    reply from the cache has an empty `usage`.
    """

    text: str
    finish_reason: str = "stop"
    usage: Usage = Usage(calls=1)
    model: str = ""
    seconds: float = 0.0
    message: dict[str, Any] = {}
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = []
    logprobs: list[dict[str, Any]] = []
    token_ids: list[int] = []
    tries: int = 1
    fingerprint: str = ""


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An embeddings call. `dimensions` shortens the vectors if the model supports it."""

    texts: tuple[str, ...]
    dimensions: int | None = None
    session: str = ""
    role: str = ""


class EmbedReply(msgspec.Struct, frozen=True, kw_only=True):
    """An embeddings reply: a vector for each text, in the order of the texts."""

    vectors: list[list[float]]
    usage: Usage = Usage(calls=1)
    model: str = ""
    seconds: float = 0.0
    tries: int = 1


Reply = TypeVar("Reply", ChatReply, EmbedReply)


class LLM(Protocol):
    """A client of one or several models."""

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request.

        Raises:
            LLMError: a subclass of it, after the client's own retries.
        """
        ...

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed texts.

        Raises:
            LLMError: as for `chat`; `LLMRejected` if the service has no embeddings.
        """
        ...

    async def close(self) -> None:
        """Close all connections; the client cannot be used afterwards."""
        ...


class Backend(Protocol):
    """Makes single attempts at one replica of a model.

    A subclass without connections inherits `healthy` and `close`.
    """

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """Send one request; `attempt` numbers the attempts of this call, from 0.

        Raises:
            Retryable: for a transient failure.
            LLMError: for a permanent failure.
        """
        ...

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """Send one embeddings request; see `chat`."""
        ...

    async def healthy(self) -> bool:
        """Return whether the replica answers; called before an ejected replica is used again."""
        return True

    async def close(self) -> None:
        """Close all connections."""


def text_of(messages: Sequence[dict[str, Any]]) -> str:
    """Return the text of chat messages, joined by line breaks; parts that are not text are skipped."""
    texts: list[str] = []
    for message in messages:
        content: Any = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [part.get("text") or "" for part in content]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - OpenAI's parts
    return "\n".join(texts)


def with_usage(reply: Reply, usage: Usage | None) -> Reply:
    """Return a copy of a reply with another usage; the reply itself if it is unknown."""
    return reply if usage is None else msgspec.structs.replace(reply, usage=usage)


def total(first: Usage | None, second: Usage | None) -> Usage | None:
    """Return the sum of two usages, each None if unknown."""
    if first is None or second is None:
        return first or second
    return first + second
