"""Tasks of the world. A turn is a token of the ledger, and so is a saved call."""

import msgspec

from peerloom.protocol.messages import Item
from peerloom.task import SCHEMA_VERSION, End, Header, SavedCall, Task, encode

_encode = msgspec.msgpack.Encoder().encode
_number = msgspec.msgpack.Decoder(int).decode


def fresh(header: Header, turns: tuple[int, ...], saved: tuple[int, ...]) -> Item:
    """A task as a feeder admits it, with what the journal knows of it."""
    task = Task(
        SCHEMA_VERSION,
        header,
        0,
        None,
        0.0,
        msgspec.Raw(_encode(header.id)),
        [_turn(token) for token in turns],
        calls=[SavedCall(b"", _encode(token)) for token in saved],
    )
    return Item(header, encode(task))


def tokens(task: Task) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The turns of a task, and its saved calls."""
    turns = tuple([_number(raw) for raw in task.raw_turns])
    return turns, tuple([_number(call.reply) for call in task.calls])


def acted(task: Task, token: int) -> Task:
    """A task after one more turn."""
    id, attempt, hop = task.header
    turns = [*task.raw_turns, _turn(token)]
    return msgspec.structs.replace(task, header=Header(id, attempt, hop + 1), raw_turns=turns, calls=[])


def ended(task: Task) -> Task:
    """A task whose row is still to be made."""
    return task.with_next(End())


def _turn(token: int) -> msgspec.Raw:
    return msgspec.Raw(_encode(token))
