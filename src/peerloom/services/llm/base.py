"""What an agent sees of a language model: one request, one reply.

A service has two halves. The *service* is held by the driver: it can start what the model needs (server
processes), and says how to reach it. The *client* lives in each peer's event loop and answers calls. The
fakes (`simulated`, `scripted`) and the real ones share these types.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from peerloom.task import Usage


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `messages` are OpenAI chat messages; parts that are images or audio pass through.

    `choices`, if any, are the only replies allowed; `schema` is a JSON schema the reply must follow;
    at most one of the two is set. `tools` are OpenAI function tools, `tool_choice` is `auto`, `none`,
    `required` or a tool's name. `top_logprobs` asks for the log-probabilities of each token and of so many
    others beside it. `seed` makes the reply reproducible where the server can.

    `session` names the conversation and `role` the agent that asks: by them a service sends a call where its
    prefix is cached, and is fair between agents. The runtime fills in what is empty.
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
    """What came back. `finish_reason` is OpenAI's: `stop`, `length`, `content_filter`, `tool_calls`.

    `message` is the reply as an OpenAI chat message; `text` its words, `reasoning` what the model thought
    before them, `tool_calls` the functions it wants called, in OpenAI's form. `logprobs` are OpenAI's, a
    record for each token; `token_ids` are the reply's tokens, if the server tells them.
    `usage.calls` is 1, and `seconds` is the time of the call that succeeded, without earlier retries; a reply
    from the cache has used nothing, and its `usage` is empty.
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


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to be turned into vectors; `dimensions` shortens these, where the model can."""

    texts: tuple[str, ...]
    dimensions: int | None = None
    session: str = ""
    role: str = ""


class EmbedReply(msgspec.Struct, frozen=True, kw_only=True):
    """A vector for each text, in their order."""

    vectors: list[list[float]]
    usage: Usage = Usage(calls=1)
    model: str = ""
    seconds: float = 0.0


class LLM(Protocol):
    """A client of a model, or of several."""

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request.

        Raises:
            LLMError: one of its subclasses, after the client's own retries.
        """
        ...

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Turn texts into vectors.

        Raises:
            LLMError: as `chat`; `LLMRejected` if the service has no embeddings.
        """
        ...

    async def close(self) -> None:
        """Give back connections. The client answers no call after it."""
        ...


class Backend(Protocol):
    """One replica of a model, as a client of it sees it: it makes single attempts, and knows no other."""

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """Try to have one request answered; `attempt` counts the tries of this call, from 0.

        Raises:
            Retryable: if it failed in a way that may pass.
            LLMError: if it failed for good.
        """
        ...

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """As `chat`."""
        ...

    async def healthy(self) -> bool:
        """Whether it would answer; asked of a replica that has failed, before it is given calls again."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


def text_of(messages: Sequence[dict[str, Any]]) -> str:
    """All words of chat messages, for whoever measures them; of parts only those that are text."""
    words: list[str] = []
    for message in messages:
        content: Any = message.get("content")
        if isinstance(content, str):
            words.append(content)
        elif isinstance(content, list):
            words += [part.get("text") or "" for part in content]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - OpenAI's parts
    return "\n".join(words)
