"""The turns of a task's history, and how a task ends."""

from typing import Any

import msgspec

COMPLETED = "completed"
FILTERED = "filtered"
TRUNCATED = "truncated"
FAILED = "failed"
OUTCOMES = (COMPLETED, FILTERED, TRUNCATED, FAILED)


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens and calls of one turn, and their cost in dollars, if it is known.

    `cached` is the part of `prompt` the server had in its cache.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    calls: int = 0
    usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
            self.calls + other.calls,
            self.usd + other.usd,
        )


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """An exception that an agent or a workflow raised, and the place in the user's code, if known."""

    role: str
    type: str
    message: str
    file: str = ""
    line: int = 0


class End(msgspec.Struct, frozen=True, array_like=True):
    """How a task ended: one of `OUTCOMES`, the reason, and the result (any JSON value).

    `error` is the exception that ended it, filled in by the runtime.
    """

    outcome: str = COMPLETED
    reason: str = ""
    result: Any = None
    detail: str = ""
    error: Fault | None = None


class Extras(msgspec.Struct, frozen=True, array_like=True):
    """Parts of a reply beside its text, as far as the server sent them.

    `reasoning` is the model's reasoning before its answer. `logprobs` are OpenAI's, a record for each token;
    `token_ids` are the reply's tokens. `repaired` is whether the answer had to be repaired to be parsed.
    """

    reasoning: str = ""
    logprobs: list[dict[str, Any]] = []
    token_ids: list[int] = []
    repaired: bool = False


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """One step of a task's history.

    `agent` is the role that acted. `message` is its OpenAI chat message, or None for a turn that adds none
    to the dialogue. `value` is the value for the workflow (any JSON value). `end` is set by an agent that
    ends the task. `usage`, `model`, `started` (Unix seconds) and `seconds` are filled in by the runtime.
    `extras` holds further parts of the reply, or is None.
    """

    agent: str
    message: dict[str, Any] | None = None
    value: Any = None
    end: End | None = None
    usage: Usage = Usage()
    model: str = ""
    finish_reason: str = ""
    started: float = 0.0
    seconds: float = 0.0
    extras: Extras | None = None

    @property
    def text(self) -> str:
        """The text of the message, or the empty string."""
        content = (self.message or {}).get("content")
        return content if isinstance(content, str) else ""


class SavedCall(msgspec.Struct, frozen=True, array_like=True):
    """A finished call of a turn that was never finished: a digest of the request, and the encoded reply.

    An attempt that starts over is given these, so that it need not ask, and pay, again. Equal requests of
    one turn have a saved call each.
    """

    digest: bytes
    reply: bytes
