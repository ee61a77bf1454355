"""What an agent sees of a language model: one request, one reply, one method.

A service has two halves. The *spec* is a small picklable value that the run holds: it can start what
the service needs (a server process), and it makes clients. The *client* lives in each peer's event
loop and answers calls. The fakes (`simulated`, `scripted`) and the real ones share these types.
"""

from typing import Any, Protocol

import msgspec

from peerloom.task import Usage


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `messages` are OpenAI chat messages.

    `choices`, if any, are the only replies allowed; `schema` is a JSON schema the reply must follow;
    at most one of the two is set. `session` names the conversation, so that a service can send it where
    its prefix is cached. `seed` makes the reply reproducible where the server can.
    """

    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    seed: int | None = None
    session: str = ""


class ChatReply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `finish_reason` is OpenAI's: `stop`, `length`, `content_filter`, `tool_calls`.

    `usage.calls` is 1, and `seconds` is the time of the call that succeeded, without earlier retries.
    """

    text: str
    finish_reason: str = "stop"
    usage: Usage = Usage(calls=1)
    model: str = ""
    seconds: float = 0.0
    message: dict[str, Any] = {}


class LLM(Protocol):
    """A client of one model."""

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request.

        Raises:
            LLMError: one of its subclasses, after the client's own retries.
        """
        ...

    async def close(self) -> None:
        """Give back connections. The client answers no call after it."""
        ...
