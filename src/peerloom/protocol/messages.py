"""Define the messages between members and the coordinator, and encode them.

Protocol messages carry the number of the view in which they were sent; a receiver in another view refuses
them. The encoding is MessagePack with a schema (`encode`, `decode`). Payloads are opaque bytes.
"""

from typing import NamedTuple

import msgspec

from peerloom.errors import CodecError
from peerloom.protocol.view import View
from peerloom.task import Header, Task, TaskId


class Item(NamedTuple):
    """One copy of a task: its identity, and the task, encoded or not, or its encoded row."""

    header: Header
    payload: bytes | Task

    @property
    def size(self) -> int:
        """The approximate size of the encoded payload, in bytes."""
        payload = self.payload
        if isinstance(payload, bytes):
            return len(payload)
        return len(payload.raw_input) + sum(map(len, payload.raw_turns))


class Deliver(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Hand a batch of tasks to another member. `seq` numbers the sender's deliveries to all members."""

    view: int
    sender: str
    seq: int
    items: list[Item]


class Delivered(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Answer a `Deliver`: the receiver now owns the batch, or has refused it. `view` is the receiver's."""

    view: int
    seq: int
    accepted: bool


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Tell a feeder which rows its shard has made durable; their permits are free."""

    view: int
    sender: str
    ids: list[TaskId]


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Open a view: the member adopts it, stops sending tasks, and reports."""

    view: View


class Report(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Report the tasks that a member holds, once all its deliveries to living members are answered.

    `uncertain` lists copies whose receiver was lost and may have accepted them. `permits` come from feeders;
    `fresh` marks a feeder that has just joined and knows nothing yet. `alone` lists the suspects that are
    still in quarantine; `holding` includes them.
    """

    view: int
    sender: str
    holding: list[Header] = []
    uncertain: list[Header] = []
    permits: list[TaskId] = []
    fresh: bool = False
    alone: list[Header] = []


class CommittedQuery(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Ask a shard which of these ids it has; with `everything`, for all ids it ever committed."""

    view: int
    ids: list[TaskId]
    everything: bool = False


class CommittedReply(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Answer a `CommittedQuery`. With `everything`, `past` is the encoded `IdSet` of all committed ids."""

    view: int
    sender: str
    committed: list[TaskId]
    queued: list[TaskId]
    past: bytes = b""


class ViewCommit(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """End the census: the member drops the copies in `discard` and resumes.

    For feeders: `done` ids are committed, `lost` ids must be admitted again, `adopt` ids are already in
    flight, `past` holds the ids committed earlier (encoded `IdSet`s), and `alone` lists the suspects in
    quarantine.
    """

    view: int
    discard: list[TaskId] = []
    done: list[TaskId] = []
    lost: list[TaskId] = []
    adopt: list[TaskId] = []
    past: list[bytes] = []
    alone: list[Header] = []


class Suspect(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Report that `member` is unreachable, or did not answer in time."""

    view: int
    sender: str
    member: str


class Exhausted(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Report that a feeder has nothing left to admit and nothing in flight."""

    view: int
    sender: str


class Drain(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Tell a feeder to admit no new tasks; lost tasks are still admitted again."""


class DoneQuery(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Ask a feeder which of these tasks are done, so that the journal can drop their records."""

    view: int
    sender: str
    ids: list[TaskId]


class DoneReply(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Answer a `DoneQuery` with the ids whose rows are known to be durable."""

    ids: list[TaskId]


class Pace(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Set the pace of feeders and peers; the message with the greatest `number` applies.

    `in_flight` is the total over all feeders. While `paused`, no task is admitted and no turn begins.
    """

    number: int
    in_flight: int
    paused: bool


class Isolate(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Request a quarantine peer for a feeder that has a suspect."""

    view: int
    sender: str


class Passed(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Tell a feeder which suspects have taken a turn in quarantine and left it."""

    view: int
    sender: str
    headers: list[Header]


class UsageReports(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """Tell the driver the service usage and demand of a member; the data is opaque here."""

    sender: str
    data: bytes


class QuotaGrants(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """Grant a member quotas of the services; the data is opaque here."""

    data: bytes


class HealthReport(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Tell the driver the health of a service, as a member sees it.

    `down` is the reason why it does not answer, empty if it does; `denied` is whether it denies all requests
    of this run, and `answered` whether it has ever answered a call of the member.
    """

    service: str
    down: str
    denied: bool
    answered: bool


class EndpointUpdate(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Tell a member the base URLs of all replicas of a service; `number` orders the updates."""

    service: str
    number: int
    urls: list[str]


ToMember = (
    Deliver
    | Ack
    | Prepare
    | CommittedQuery
    | ViewCommit
    | Drain
    | DoneQuery
    | Pace
    | Passed
    | QuotaGrants
    | EndpointUpdate
)
ToCoordinator = Report | CommittedReply | Suspect | Exhausted | Isolate
Message = ToMember | ToCoordinator | Delivered | DoneReply | UsageReports

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Encode a message as MessagePack."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """Decode a message.

    Raises:
        CodecError: if `data` is not an encoded message.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not a protocol message: {error}") from error
