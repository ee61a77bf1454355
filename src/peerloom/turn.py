"""The turns of a task's history, and how a task ends."""

from typing import Any, NamedTuple

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


class LeaseName(NamedTuple):
    """Identifies a set of leases within its task.

    `hop` is that of the turn that acquired it, `number` numbers the acquisitions of that turn, and `digest`
    is that of the specs.
    """

    hop: int
    number: int
    digest: bytes


class HeldSet(NamedTuple):
    """A set of leases that a task holds: the specs of the resources, and the place of their process."""

    name: LeaseName
    specs: list[bytes]
    place: str = ""


class RecordedStep(NamedTuple):
    """A step on a lease that a turn or the journal has recorded.

    `number` counts the steps of the lease from 1, `before` is its history before this one, and `digest` that
    of the request (`protocol/leases`).
    """

    name: LeaseName
    slot: int
    number: int
    before: bytes
    digest: bytes
    request: bytes
    reply: bytes


class TurnLeases(msgspec.Struct, frozen=True, array_like=True):
    """The leases of one service that a turn has left with its task, and the steps it made on them."""

    service: str
    held: HeldSet
    steps: list[RecordedStep] = []


class Execution(msgspec.Struct, frozen=True, array_like=True):
    """How a turn was made, for later inspection.

    `member` is the incarnation of the peer. `waited` is the time in seconds that its calls spent waiting: for
    quota, for a lease, or between two tries. `tries` counts the attempts at all its calls; `replayed` lists
    the calls, numbered from 0, that were answered from the journal.
    """

    member: str = ""
    waited: float = 0.0
    tries: int = 0
    replayed: tuple[int, ...] = ()


class ModelCall(msgspec.Struct, frozen=True, array_like=True):
    """A call of a model that a turn has made.

    `request` and `reply` are objects in MessagePack: the request as a difference from earlier ones
    (`sink/calls`), and the parts of the reply that the turn does not have, or the `error` that the call
    has raised.
    """

    request: msgspec.Raw
    reply: msgspec.Raw
    usage: Usage = Usage()


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """One step of a task's history.

    `agent` is the role that acted. `message` is its OpenAI chat message, or None for a turn that adds none
    to the dialogue. `value` is the value for the workflow (any JSON value). `end` is set by an agent that
    ends the task. `usage`, `model`, `started` (Unix seconds) and `seconds` are filled in by the runtime.
    `extras` holds further parts of the reply, or is None. `context` has the messages that precede this one in
    a conversation, besides those of other roles: normally the system message and the first user message. With
    `context_only`, those of other roles since the last turn of this one are not part of the conversation: the
    role did not see them. `execution`, `leases` and `calls` are the runtime's.
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
    execution: Execution | None = None
    leases: tuple[TurnLeases, ...] = ()
    context: tuple[dict[str, Any], ...] = ()
    context_only: bool = False
    calls: tuple[ModelCall, ...] = ()

    @property
    def text(self) -> str:
        """The text of the message, or the empty string."""
        content = (self.message or {}).get("content")
        return content if isinstance(content, str) else ""


class SavedCall(msgspec.Struct, frozen=True, array_like=True):
    """A finished call of a turn that was never finished.

    An attempt that starts over is given these, so that it need not ask, and pay, again. `digest` is that of
    the service and its request; equal requests of one turn have a saved call each. A call of a lease is a
    `step` of `service` instead.
    """

    digest: bytes
    reply: bytes
    service: str = ""
    step: RecordedStep | None = None
