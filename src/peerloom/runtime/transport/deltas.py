"""Send large tasks as deltas: a peer that has seen a task is sent only its new turns.

A peer caches the newest copy of each large task, its *history*, within a memory limit, and records how many
of its turns other peers have. To such a peer it sends only the later turns, with a chained digest of the
omitted input and turns. The receiver completes the task from its own history if the digest matches.
Otherwise it answers `Unknown`, and the sender repeats the delivery with that task in full. The protocol sees
neither: a delivery reaches it once all its tasks are complete.

The cache affects cost only, never correctness. A wrong belief about another peer costs one more round trip.
Histories that have diverged since a census have different digests, even at an equal attempt and hop.
"""

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Set

import msgspec

from peerloom.errors import CodecError
from peerloom.protocol.messages import Deliver, Item, Message, encode
from peerloom.runtime.transport.base import Link
from peerloom.task import Header, Task, TaskId, decode_rest, encode_rest
from peerloom.task import decode as decode_task
from peerloom.task import encode as encode_task

MIN_BYTES = 32 << 10
"""Encoded tasks below this size are always sent in full, which costs less than caching them."""

_DIGEST = 16
_TURN_OVERHEAD = 96  # bytes of memory for each turn, beside its content
_TASK_OVERHEAD = 1_000  # and for each task


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """The history information sent with a large task.

    `seen` maps each peer to the number of turns it has. With a `digest`, the payload omits the input and the
    first `turns` turns.
    """

    seen: dict[str, int]
    turns: int = 0
    digest: bytes = b""


class DeltaDeliver(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """A `Deliver` with large tasks, whose deltas are given by their place among its items."""

    deliver: Deliver
    deltas: dict[int, Delta]


class Unknown(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Answer a `DeltaDeliver` whose tasks at these places the receiver cannot complete; it took none."""

    places: list[int]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message | DeltaDeliver | Unknown)


def _decode(data: bytes) -> Message | DeltaDeliver | Unknown:
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not a protocol message: {error}") from error


class History:
    """The input and turns of one copy of a task, and the number of turns that each other peer has."""

    __slots__ = ("_digests", "raw_input", "raw_turns", "seen", "size")

    def __init__(self, task: Task) -> None:
        self.raw_input = task.raw_input
        self.raw_turns = task.raw_turns
        self.seen: dict[str, int] = {}
        self.size = _TASK_OVERHEAD + len(task.raw_input) + _bytes(task.raw_turns)
        self._digests = bytearray()  # at each length from 0, computed on demand

    def digest(self, turns: int) -> bytes:
        """Return the digest of the input and the first `turns` turns."""
        digests = self._digests
        while len(digests) <= turns * _DIGEST:
            done = len(digests) // _DIGEST
            chain = hashlib.sha256(digests[-_DIGEST:])
            chain.update(self.raw_turns[done - 1] if done else self.raw_input)
            digests += chain.digest()[:_DIGEST]
        return bytes(digests[turns * _DIGEST : (turns + 1) * _DIGEST])

    def is_prefix_of(self, task: Task) -> bool:
        """Return whether a task extends this history.

        Compares by identity: a raw turn is one object, shared by all versions of its task.
        """
        turns = len(self.raw_turns)
        if turns == 0:
            return task.raw_input is self.raw_input
        return len(task.raw_turns) >= turns and task.raw_turns[turns - 1] is self.raw_turns[turns - 1]

    def replace(self, task: Task, shared: int) -> None:
        """Replace the turns by those of a task that shares the first `shared` of them."""
        if shared < len(self.raw_turns):
            del self._digests[(shared + 1) * _DIGEST :]
            self.size -= _bytes(self.raw_turns[shared:])
            self.seen = {name: min(turns, shared) for name, turns in self.seen.items()}
        self.size += _bytes(task.raw_turns[shared:])
        self.raw_turns = task.raw_turns


class DeltaCodec:
    """Encodes and decodes the messages between members.

    Args:
        name: the member's name.
        max_bytes: the approximate size limit of the cache; 0 disables it.

    Attributes:
        size: the approximate size of the cache, in bytes.
    """

    def __init__(self, name: str, max_bytes: int) -> None:
        self._name = name
        self._max_bytes = max_bytes
        self._min_bytes = MIN_BYTES if max_bytes else sys.maxsize
        self._entries: OrderedDict[TaskId, History] = OrderedDict()  # in order of last use
        self.size = 0

    async def send(self, link: Link, destination: str, deliver: Deliver) -> Message:
        """Send a delivery, and return its answer.

        Raises:
            Unreachable: if there was no answer; the delivery may have arrived.
        """
        full: set[int] = set()
        while True:
            answer = _decode(await link.send(destination, self.encode(destination, deliver, full)))
            if not isinstance(answer, Unknown):
                assert not isinstance(answer, DeltaDeliver)
                return answer
            full.update(answer.places)

    def receive(self, data: bytes, handle: Callable[[Message], Message | None]) -> bytes:
        """Pass an encoded message to `handle`, and return the encoded answer; empty if there is none."""
        message = self.decode(data)
        answer = message if isinstance(message, Unknown) else handle(message)
        return _encoder.encode(answer) if answer is not None else b""

    def item(self, task: Task) -> Item:
        """Return the item that carries a task: encoded, unless it is large."""
        header = task.header
        if not self._entries or header.id not in self._entries:
            payload = encode_task(task)
            if len(payload) < self._min_bytes:
                return Item(header, payload)
        return Item(header, task)

    def encode(self, destination: str, deliver: Deliver, full: Set[int] = frozenset()) -> bytes:
        """Encode a delivery, omitting the turns that the destination has, except at the `full` places."""
        items, deltas = deliver.items.copy(), dict[int, Delta]()
        for place, (header, task) in enumerate(deliver.items):
            if isinstance(task, Task):
                payload, deltas[place] = self._pack(destination, task, place in full)
                items[place] = Item(header, payload)
        if not deltas:
            return encode(deliver)
        return _encoder.encode(DeltaDeliver(msgspec.structs.replace(deliver, items=items), deltas))

    def decode(self, data: bytes) -> Message | Unknown:
        """Decode a message, and complete and cache its large tasks.

        Raises:
            CodecError: if `data` is not an encoded message.
        """
        message = _decode(data)
        if isinstance(message, DeltaDeliver):
            return self._complete(message.deliver, message.deltas)
        if isinstance(message, Deliver) and self._max_bytes:
            return self._complete(message, {})
        return message

    def seen(self, task: Task) -> Mapping[str, int]:
        """Return the number of turns that each other peer has of a task; empty if it is not cached."""
        history = self._entries.get(task.id) if self._entries else None
        return history.seen if history is not None and history.is_prefix_of(task) else {}

    def drop(self, header: Header) -> None:
        """Drop the history of a task that has ended."""
        if self._entries:
            history = self._entries.pop(header.id, None)
            if history is not None:
                self.size -= history.size

    def _complete(self, deliver: Deliver, deltas: Mapping[int, Delta]) -> Deliver | Unknown:
        unknown = list[int]()
        for place, item in enumerate(deliver.items):
            delta = deltas.get(place)
            if delta is not None or item.size >= self._min_bytes:
                task = self._unpack(deliver.sender, item, delta)
                if task is None:
                    unknown.append(place)
                else:
                    deliver.items[place] = Item(item.header, task)
        return Unknown(unknown) if unknown else deliver

    def _pack(self, destination: str, task: Task, full: bool) -> tuple[bytes, Delta]:
        header = task.header
        history = self._entries.get(header.id)
        if history is None or not history.is_prefix_of(task):
            history, seen = History(task), None
            self._store(header, history)
        else:
            before = history.size
            history.replace(task, len(history.raw_turns))
            self._account(header, history.size - before)
            seen = None if full else history.seen.get(destination)
        payload = encode_task(task) if seen is None else encode_rest(task, seen)
        digest = b"" if seen is None else history.digest(seen)
        delta = Delta({name: n for name, n in history.seen.items() if name != destination}, seen or 0, digest)
        history.seen[destination] = len(task.raw_turns)
        if task.end is not None:
            self.drop(header)
        return payload, delta

    def _unpack(self, sender: str, item: Item, delta: Delta | None) -> Task | None:
        """Return a large task; None if the turns that its payload omits are not cached."""
        header, payload = item
        assert isinstance(payload, bytes)
        if delta is None or not delta.digest:
            task = decode_task(payload)
            history = History(task)
            if delta is not None:
                self._learn(history, sender, delta)
            self._store(header, history)
            return task
        history, turns = self._entries.get(header.id), delta.turns
        if history is None or turns > len(history.raw_turns) or history.digest(turns) != delta.digest:
            return None
        task = decode_rest(payload, history.raw_input, history.raw_turns[:turns])
        before = history.size
        history.replace(task, turns)
        self._learn(history, sender, delta)
        self._account(header, history.size - before)
        return task

    def _learn(self, history: History, sender: str, delta: Delta) -> None:
        """Merge the sender's records of the peers that have the task, and add the sender."""
        seen = history.seen
        for name, turns in delta.seen.items():
            if name != self._name and turns > seen.get(name, -1):
                seen[name] = turns
        seen[sender] = len(history.raw_turns)

    def _store(self, header: Header, history: History) -> None:
        self.drop(header)
        self._entries[header.id] = history
        self._account(header, history.size)

    def _account(self, header: Header, size: int) -> None:
        """Mark a history as used and `size` bytes larger; evict the least recently used ones if needed."""
        self._entries.move_to_end(header.id)
        self.size += size
        while self.size > self._max_bytes and self._entries:
            _, oldest = self._entries.popitem(last=False)
            self.size -= oldest.size


def _bytes(raw_turns: Iterable[msgspec.Raw]) -> int:
    return sum([len(raw) + _TURN_OVERHEAD for raw in raw_turns])
