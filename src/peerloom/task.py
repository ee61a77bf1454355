"""The travelling message: a `Task` carries its input, its history and who acts next.

A task is a small immutable value. Its history is a list of turns, each encoded to MessagePack once,
when it is made; a hop copies those bytes and never looks inside them. `task.turns` and `task.input`
decode on first use and remember the result.

In the words of the paper (arXiv 2511.21686, section 4): the task is the "orchestrator" object, a turn
is a history entry, `next_role` and `end` are the result of the routing function.
"""

from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from peerloom.errors import CodecError
from peerloom.turn import (
    COMPLETED,
    FAILED,
    FILTERED,
    OUTCOMES,
    TRUNCATED,
    End,
    Execution,
    Extras,
    Fault,
    HeldSet,
    LeaseName,
    ModelCall,
    RecordedStep,
    SavedCall,
    Turn,
    TurnLeases,
    Usage,
)

__all__ = [
    "COMPLETED",
    "FAILED",
    "FILTERED",
    "OUTCOMES",
    "SCHEMA_VERSION",
    "TRUNCATED",
    "End",
    "Execution",
    "Extras",
    "Fault",
    "Header",
    "HeldSet",
    "LeaseName",
    "ModelCall",
    "RecordedStep",
    "SavedCall",
    "Task",
    "TaskId",
    "Turn",
    "TurnLeases",
    "Usage",
    "decode",
    "decode_rest",
    "encode",
    "encode_rest",
    "new_task",
]

SCHEMA_VERSION = 6


class TaskId(NamedTuple):
    """Where a task comes from: input file, line in it, and which trial of that row, each from 0.

    It does not depend on how the source is partitioned. `str()` gives the row id: `"0-17-2"`.
    """

    file: int
    row: int
    trial: int

    def __str__(self) -> str:
        return f"{self.file}-{self.row}-{self.trial}"


class Header(NamedTuple):
    """Identity of one copy of a task; of two copies of an id the greater `(attempt, hop)` is newer.

    `attempt` is the number of the view that admitted the task, so a re-admission is newer than the copies
    it replaces. `hop` counts the agents that have acted.
    """

    id: TaskId
    attempt: int = 0
    hop: int = 0

    @property
    def age(self) -> tuple[int, int]:
        """The order of two copies: the greater one is newer."""
        return self.attempt, self.hop


_set = msgspec.structs.force_setattr
_turn_encoder = msgspec.msgpack.Encoder()
_turn_decoder = msgspec.msgpack.Decoder(Turn)
_value_decoder = msgspec.msgpack.Decoder()
_LONGEST_HEAD = 5  # bytes of MessagePack before the items of a list


class Task(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """One row of input on its way through the agents. Immutable: `with_*` make the next version.

    `seed` is this task's own seed, a function of the run's seed and its id. `label` is the row's own
    key, if the source has one. `started` is when it was admitted, in Unix seconds. `calls` are the finished
    calls of an earlier attempt at the next turn. `parent` names the row of another run that the input is
    from.
    """

    version: int
    header: Header
    seed: int
    label: str | int | None
    started: float
    raw_input: msgspec.Raw
    raw_turns: list[msgspec.Raw] = []
    next_role: str = ""
    end: End | None = None
    calls: list[SavedCall] = []
    parent: str = ""

    @property
    def id(self) -> TaskId:
        """Where the task comes from."""
        return self.header.id

    @cached_property
    def input(self) -> Any:
        """The input row, decoded: any JSON value, normally an object."""
        return _value_decoder.decode(self.raw_input)

    def decode_input(self) -> Any:
        """Return the input row as it was read, without changes that agents may have made to `input`."""
        if "input" in _decoded(self) and _turn_encoder.encode(self.input) == bytes(self.raw_input):
            return self.input
        return _value_decoder.decode(self.raw_input)

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The whole history, oldest first, decoded."""
        return tuple(_turn_decoder.decode(raw) for raw in self.raw_turns)

    def decode_turns(self) -> tuple[Turn, ...]:
        """Return the history as it was appended, without changes that agents may have made to `turns`."""
        if "turns" in _decoded(self):
            encoded, original = _turn_encoder.encode(self.turns), b"".join(self.raw_turns)
            if encoded.endswith(original) and len(encoded) - len(original) <= _LONGEST_HEAD:
                return self.turns
        return tuple(_turn_decoder.decode(raw) for raw in self.raw_turns)

    @cached_property
    def last(self) -> Turn | None:
        """The newest turn, or None before anyone has acted. Decodes that turn only."""
        if "turns" in _decoded(self) or not self.raw_turns:
            return self.turns[-1] if self.raw_turns else None
        return _turn_decoder.decode(self.raw_turns[-1])

    def forget_input(self) -> None:
        """Drop the decoded row to save memory; reading `input` decodes it again."""
        _decoded(self).pop("input", None)

    def keep(self, value: object) -> None:
        """Keep a value with the task, and its later versions, until it leaves the process."""
        _decoded(self)["kept"] = value

    def take_kept(self) -> Any:
        """Return the value that was kept, or None, and keep it no longer."""
        return _decoded(self).pop("kept", None)

    def by(self, agent: str) -> tuple[Turn, ...]:
        """Return the turns of one role, oldest first.

        Raises:
            ValueError: if the workflow has no such role.
        """
        self._check_role(agent)
        return tuple(turn for turn in self.turns if turn.agent == agent)

    def value(self, agent: str, default: Any = None) -> Any:
        """Return the last value of a role, or `default` if it has not acted.

        Raises:
            ValueError: if the workflow has no such role.
        """
        self._check_role(agent)
        for turn in reversed(self.turns):
            if turn.agent == agent:
                return turn.value
        return default

    def know_roles(self, roles: Sequence[str]) -> None:
        """Have `by` and `value` refuse other roles than these, which are the workflow's."""
        _decoded(self)["roles"] = roles

    def _check_role(self, agent: str) -> None:
        roles: Sequence[str] = _decoded(self).get("roles", ())
        if roles and agent not in roles:
            close = get_close_matches(str(agent), roles, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"there is no role {agent!r}; {hint}The roles are: {', '.join(roles)}")

    def with_turns(self, *turns: Turn) -> "Task":
        """This task after one agent has acted: the turns appended, one hop further.

        Raises:
            TypeError, ValueError, OverflowError, RecursionError: if a turn cannot be encoded.
        """
        raw = [msgspec.Raw(_turn_encoder.encode(turn)) for turn in turns]
        # Decoded again at once: a turn is the same value here and on the next peer, or refused here.
        return self._one_hop_further(raw, tuple([_turn_decoder.decode(encoded) for encoded in raw]))

    def with_exact_turn(self, turn: Turn) -> "Task":
        """As `with_turns`, of a turn that would be the same after encoding and decoding it.

        Raises:
            ValueError, OverflowError: if it holds a lone surrogate, or an integer of more than 64 bits.
        """
        return self._one_hop_further([msgspec.Raw(_turn_encoder.encode(turn))], (turn,))

    def _one_hop_further(self, raw: list[msgspec.Raw], turns: tuple[Turn, ...]) -> "Task":
        id, attempt, hop = self.header
        header = Header(id, attempt, hop + 1)
        after = replace(self, header=header, raw_turns=self.raw_turns + raw, calls=[])
        mine, known = _decoded(self), _decoded(after)
        known["last"] = turns[-1] if turns else self.last
        for name in ("roles", "input", "kept"):
            if name in mine:
                known[name] = mine[name]
        if "turns" in mine or not self.raw_turns:
            known["turns"] = self.turns + turns
        return after

    def with_next(self, where: "str | End") -> "Task":
        """This task sent to a role, or ended."""
        after = replace(self)
        _decoded(after).update(_decoded(self))
        return after.go_to(where)

    def go_to(self, where: "str | End") -> "Task":
        """As `with_next`, but in place: only for a version that nobody else has seen yet."""
        end = where if isinstance(where, End) else None
        _set(self, "next_role", "" if end is not None else where)
        if end is not self.end:
            _set(self, "end", end)
        return self


def _decoded(task: Any) -> dict[str, Any]:
    """Return the values of the cached properties that have been decoded."""
    return task.__dict__


_LEFT_OUT = msgspec.Raw(b"\xc0")
_task_encoder = msgspec.msgpack.Encoder()
_task_decoder = msgspec.msgpack.Decoder(Task)


def new_task(
    header: Header,
    row: Any,
    *,
    seed: int,
    label: str | int | None = None,
    parent: str = "",
    started: float = 0.0,
    raw_turns: Sequence[msgspec.Raw] = (),
    calls: Sequence[SavedCall] = (),
) -> Task:
    """Make a task of one input row (any JSON value).

    It has no turns yet, unless `raw_turns` and `calls` hold those of an earlier attempt.
    """
    task = Task(
        version=SCHEMA_VERSION,
        header=header,
        seed=seed,
        label=label,
        parent=parent,
        started=started,
        raw_input=msgspec.Raw(_turn_encoder.encode(row)),
        raw_turns=list(raw_turns),
        calls=list(calls),
    )
    _decoded(task)["input"] = row
    return task


def encode(task: Task) -> bytes:
    """The task as MessagePack; turns and input are copied, not encoded again."""
    return _task_encoder.encode(task)


def decode(data: bytes) -> Task:
    """The task in `data`, made by `encode`.

    Raises:
        CodecError: if `data` is of another schema version, or no task at all.
    """
    try:
        task = _task_decoder.decode(data)
    except msgspec.MsgspecError as error:
        with suppress(msgspec.MsgspecError):
            _check_version(_version_decoder.decode(data).version)
        raise CodecError(f"not an encoded task: {error}") from error
    _check_version(task.version)
    return task


def encode_rest(task: Task, turns: int) -> bytes:
    """Encode a task without its input and its first turns, for a receiver that has these."""
    return _task_encoder.encode(replace(task, raw_input=_LEFT_OUT, raw_turns=task.raw_turns[turns:]))


def decode_rest(data: bytes, raw_input: msgspec.Raw, raw_turns: list[msgspec.Raw]) -> Task:
    """The whole task, of which `encode_rest` has left out this input and these turns.

    Raises:
        CodecError: as `decode`.
    """
    rest = decode(data)
    return replace(rest, raw_input=raw_input, raw_turns=[*raw_turns, *rest.raw_turns])


class _Version(msgspec.Struct, array_like=True):
    """The first field of a task of any schema version."""

    version: int


_version_decoder = msgspec.msgpack.Decoder(_Version)


def _check_version(version: int) -> None:
    if version != SCHEMA_VERSION:
        raise CodecError(
            f"task of schema version {version}, but this release reads version {SCHEMA_VERSION}: "
            "run all processes of a run with the same Peerloom release"
        )
