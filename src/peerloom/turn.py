"""The turns of a task's history, and how a task ends."""

from typing import Any

import msgspec

COMPLETED = "completed"
FILTERED = "filtered"
TRUNCATED = "truncated"
FAILED = "failed"
OUTCOMES = (COMPLETED, FILTERED, TRUNCATED, FAILED)


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens and calls of one turn, and what they cost in dollars, if that is known.

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
    """How a task ended: one of `OUTCOMES`, why, and what it produced (any JSON value).

    `error` is the exception that ended it, filled in by the runtime.
    """

    outcome: str = COMPLETED
    reason: str = ""
    result: Any = None
    detail: str = ""
    error: Fault | None = None


class Extras(msgspec.Struct, frozen=True, array_like=True):
    """What came with a reply, beside its words, as far as the server gave it.

    `reasoning` is what the model thought before it spoke. `logprobs` are OpenAI's, a record for each token;
    `token_ids` the reply's tokens. `repaired` is whether the answer had to be mended to be read.
    """

    reasoning: str = ""
    logprobs: list[dict[str, Any]] = []
    token_ids: list[int] = []
    repaired: bool = False


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """One step of a task's history.

    `agent` is the role that acted. `message` is what it said, as an OpenAI chat message, or None if it
    said nothing aloud. `value` is what it returned to the workflow (any JSON value). `end` is set by
    an agent that ends the task. `usage`, `model`, `started` (Unix seconds) and `seconds` are filled in
    by the runtime. `extras` is what came with the reply beside its words; None if nothing did.
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
        """What was said, or the empty string."""
        content = (self.message or {}).get("content")
        return content if isinstance(content, str) else ""


class SavedCall(msgspec.Struct, frozen=True, array_like=True):
    """A finished call of a turn that was never finished: a digest of the request, and the encoded reply.

    An attempt that starts over is given these, so that it need not ask, and pay, again. Equal requests of
    one turn have a saved call each.
    """

    digest: bytes
    reply: bytes
