"""What members and the coordinator say to each other.

Every message carries the number of the view it was said in; members refuse what was said in another.
All of it is MessagePack with a schema (`encode`, `decode`); payloads are opaque bytes.
"""

from typing import NamedTuple

import msgspec

from peerloom.errors import CodecError
from peerloom.protocol.view import View
from peerloom.task import Header, Task, TaskId


class DeltaInfo(NamedTuple):
    """What a copy of a large task says of its history: which peers have how many of its turns.

    With a `digest`, the payload is without the input and the first `turns`: the receiver has these, if its
    own history of the task has that digest at that length.
    """

    seen: dict[str, int]
    turns: int = 0
    digest: bytes = b""


class Item(NamedTuple):
    """One copy of a task on its way: its identity, and the encoded task or row."""

    header: Header
    payload: bytes
    delta: DeltaInfo | None = None


Copy = Item | Task
"""One copy of a task at a member: packed or decoded. Of it only the `header` counts here."""


class Deliver(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A batch of tasks handed to another member. `seq` counts the sender's deliveries, to anyone."""

    view: int
    sender: str
    seq: int
    items: list[Item]


class Delivered(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The answer to `Deliver`: the batch is now the receiver's, or was refused. `view` is the receiver's.

    Of a batch that is accepted, the items at the places in `missing` are still the sender's: the receiver
    has not the history that they go on from.
    """

    view: int
    seq: int
    accepted: bool
    missing: list[int] = []


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A shard tells the feeder which rows are safe on disk; their permits are free."""

    view: int
    sender: str
    ids: list[TaskId]


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The coordinator opens a view: adopt it, hold outgoing tasks, report."""

    view: View


class Report(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """What a member holds, once all its deliveries to the living are answered.

    `uncertain` are copies whose receiver is lost and may have taken them. `permits` come from feeders;
    `fresh` marks a feeder that has just joined and knows nothing yet. `alone` are suspects that have not
    left their quarantine; they are among `holding` too.
    """

    view: int
    sender: str
    holding: list[Header] = []
    uncertain: list[Header] = []
    permits: list[TaskId] = []
    fresh: bool = False
    alone: list[Header] = []


class CommittedQuery(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The coordinator asks a shard which of these it has; with `everything`, all it ever committed."""

    view: int
    ids: list[TaskId]
    everything: bool = False


class CommittedReply(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A shard's answer to `CommittedQuery`; `past` is an encoded `IdSet`, empty unless everything was asked for."""

    view: int
    sender: str
    committed: list[TaskId]
    queued: list[TaskId]
    past: bytes = b""


class ViewCommit(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The census is over: drop `discard`, then go on.

    For feeders: `done` ids are committed, `lost` ids are to be admitted again, `adopt` ids are in
    flight already, what is in `past` (encoded `IdSet`s) was committed earlier, and `alone` are the
    suspects in quarantine.
    """

    view: int
    discard: list[TaskId] = []
    done: list[TaskId] = []
    lost: list[TaskId] = []
    adopt: list[TaskId] = []
    past: list[bytes] = []
    alone: list[Header] = []


class Suspect(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """A member could not reach another one, or got no answer in time."""

    view: int
    sender: str
    member: str


class Exhausted(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """A feeder has nothing left to admit and nothing in flight."""

    view: int
    sender: str


class Drain(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """A feeder is to admit nothing more, but for what was lost."""


class DoneQuery(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """A member asks a feeder which of these are done, so that the journal need not keep them."""

    view: int
    sender: str
    ids: list[TaskId]


class DoneReply(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """The answer to `DoneQuery`: the ids of those rows that are known to be safe on disk."""

    ids: list[TaskId]


class Pace(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """How fast feeders and peers are to go from now on; the greatest `number` counts.

    `in_flight` is over all feeders. While `paused`, nothing new is admitted and no turn begins.
    """

    number: int
    in_flight: int
    paused: bool


class Isolate(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """A feeder has a suspect, and needs a process where that runs alone."""

    view: int
    sender: str


class Passed(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Suspects have taken a turn in quarantine, and left it for the ordinary peers."""

    view: int
    sender: str
    headers: list[Header]


class UsageReports(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """A member tells the driver what it uses of the services, and wants of them; opaque here."""

    sender: str
    data: bytes


class QuotaGrants(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """The driver tells a member what it may use of the services; opaque here."""

    data: bytes


ToMember = (
    Deliver | Ack | Prepare | CommittedQuery | ViewCommit | Drain | DoneQuery | Pace | Passed | QuotaGrants
)
ToCoordinator = Report | CommittedReply | Suspect | Exhausted | Isolate
Message = ToMember | ToCoordinator | Delivered | DoneReply | UsageReports

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The message as MessagePack."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """The message in `data`.

    Raises:
        CodecError: if it is none.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not a protocol message: {error}") from error
