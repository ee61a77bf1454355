"""Define the messages between the holder of a lease, the table that grants it, and the feeders.

A *stamp* orders everything that happens to a task's leases: `(attempt, hop, serial)`, where attempt and hop
are the age of the copy that acts and `serial` numbers its acquisitions and releases in one turn. It is the
fencing token: a table refuses a message with an older stamp than the newest one it has seen of that task.

A *history* is a rolling digest of the steps of a lease since its state was built. It tells a table whether
its state is the one that the journal describes.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import msgspec

from peerloom.errors import CodecError
from peerloom.task import TaskId
from peerloom.turn import LeaseName

T = TypeVar("T")

HISTORY_BYTES = 12


class Stamp(NamedTuple):
    """The fencing token of one message; see the module."""

    attempt: int
    hop: int
    serial: int


def digest_of_specs(service: str, specs: Sequence[bytes]) -> bytes:
    """Return the digest of the specs of a set of a service."""
    return hashlib.blake2b(_encode((service, specs)), digest_size=HISTORY_BYTES).digest()


def extend_history(history: bytes, step: bytes) -> bytes:
    """Return the history after one more step; `step` is the digest of its request."""
    return hashlib.blake2b(history + step, digest_size=HISTORY_BYTES).digest()


class Acquire(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Acquire a set of leases, all at once, or take it over from an older copy of the task.

    `specs` has the description of each resource; `histories` are those that the journal knows. With `wait`,
    the answer comes when the set is free.
    """

    id: TaskId
    stamp: Stamp
    name: LeaseName
    specs: list[bytes]
    histories: list[bytes]
    wait: bool = True


class Step(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Execute a request on one lease of a set.

    `number` counts the steps of the lease from 1, and `history` is that of the lease before this one.
    """

    id: TaskId
    stamp: Stamp
    name: LeaseName
    slot: int
    number: int
    history: bytes
    digest: bytes
    request: bytes


class Release(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Release all leases of a task before it ends."""

    id: TaskId
    stamp: Stamp


class Granted(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Answer an `Acquire` with the history of each state: as requested, or empty for a new state.

    `place` is that of the process, filled in by the client.
    """

    histories: list[bytes]
    place: str = ""


class StepReply(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Answer a `Step`."""

    reply: bytes


class Released(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Answer a `Release`, also a repeated one."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Answer a message that was not carried out.

    `reason` is one of the constants below; `detail` is for the user.
    """

    reason: str
    detail: str = ""


FENCED = "fenced"
"""A newer copy of the task has been here, or the task has ended: the sender is obsolete."""

STALE = "stale"
"""The state is not the one the sender describes, or there is none: acquire the set again."""

FULL = "full"
"""The set is not free now, and the message does not wait."""

TOO_MANY = "too_many"
"""The table never has this number of leases."""

FAILED = "failed"
"""The service could not build a state, or execute a step; the lease is as before."""


class TasksEnded(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Release all leases of tasks that have ended, for good. Sent by their feeder."""

    ids: list[TaskId]


class TaskResumed(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Fence all copies of a task before `attempt`, and release the leases that its new copy does not name."""

    id: TaskId
    attempt: int
    names: list[LeaseName]


class TasksInFlight(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Release the leases that no task in flight holds.

    `ids` are the tasks in flight of one of `partitions` partitions when the census of `view` ended. Leases of
    attempts of this view or later are not concerned.
    """

    view: int
    partition: int
    partitions: int
    ids: list[TaskId]


class TasksEndedBefore(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Tell a process that has just started which tasks have ended: an encoded `IdSet`."""

    ids: bytes


Request = Acquire | Step | Release
Reply = Granted | StepReply | Released | Refused
Control = TasksEnded | TaskResumed | TasksInFlight | TasksEndedBefore

_encode = msgspec.msgpack.Encoder().encode
_requests = msgspec.msgpack.Decoder(Request)
_replies = msgspec.msgpack.Decoder(Reply)
_controls = msgspec.msgpack.Decoder(list[Control])


def encode(message: Request | Reply | list[Control]) -> bytes:
    """Encode a message as MessagePack."""
    return _encode(message)


def decode_request(data: bytes) -> Request:
    """Decode a request.

    Raises:
        CodecError: if `data` is none.
    """
    return _decode(_requests, data)


def decode_reply(data: bytes) -> Reply:
    """Decode a reply.

    Raises:
        CodecError: if `data` is none.
    """
    return _decode(_replies, data)


def decode_controls(data: bytes) -> list[Control]:
    """Decode control messages.

    Raises:
        CodecError: if `data` has none.
    """
    return _decode(_controls, data)


def _decode(decoder: "msgspec.msgpack.Decoder[T]", data: bytes) -> T:
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not a message about leases: {error}") from error
