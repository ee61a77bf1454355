"""Cache the histories of large tasks, so that peers send each other only new turns.

A peer caches the newest copy of each large task, within a memory limit, and records how many of its turns
other peers have. To such a peer it sends only the later turns, with a chained digest of the omitted input
and turns. The receiver completes the task from its own history if the digest matches. Otherwise it leaves
the copy with the sender, which then sends it in full.

The cache affects cost only, never correctness. Members always hold complete copies. A wrong belief about
another peer costs one more message. Histories that have diverged since a census have different digests,
even at an equal attempt and hop.
"""

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set

import msgspec

from peerloom.protocol.messages import Copy, DeltaInfo, Item
from peerloom.task import Header, Task, TaskId, decode, decode_rest, encode, encode_rest

MIN_BYTES = 32 << 10
"""Encoded tasks below this size are always sent in full, which costs less than caching them."""

_DIGEST = 16
_TURN_OVERHEAD = 96  # bytes of memory for each turn, beside its content
_TASK_OVERHEAD = 1_000  # and for each task


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


class Histories:
    """The cached histories of one peer, used to pack and unpack its tasks.

    Args:
        name: the peer's name.
        max_bytes: the approximate size limit; 0 disables the cache.
        min_bytes: the encoded size from which a task is cached.
    """

    def __init__(self, name: str, max_bytes: int, min_bytes: int = MIN_BYTES) -> None:
        self._name = name
        self._max_bytes = max_bytes
        self._min_bytes = min_bytes if max_bytes else sys.maxsize
        self._entries: OrderedDict[TaskId, History] = OrderedDict()  # in order of last use
        self._bytes = 0

    @property
    def size(self) -> int:
        """The approximate size of the cache, in bytes."""
        return self._bytes

    def pack(self, destination: str, copy: Copy, full: bool) -> Item:
        """Encode a copy for a destination, without the turns it has, unless it needs the `full` task.

        A task that has ended leaves the cache, since it does not come back.
        """
        if isinstance(copy, Item):
            return copy
        header = copy.header
        history = self._entries.get(header.id) if self._entries else None
        if history is None or not history.is_prefix_of(copy):
            payload = encode(copy)
            if len(payload) < self._min_bytes:
                return Item(header, payload)
            history = History(copy)
            self._store(header, history)
            seen = None
        else:
            before = history.size
            history.replace(copy, len(history.raw_turns))
            seen = None if full else history.seen.get(destination)
            payload = encode(copy) if seen is None else encode_rest(copy, seen)
            self._account(header, history.size - before)
        digest = b"" if seen is None else history.digest(seen)
        delta = DeltaInfo(
            {name: n for name, n in history.seen.items() if name != destination}, seen or 0, digest
        )
        history.seen[destination] = len(copy.raw_turns)
        if copy.end is not None:
            self.drop(header)
        return Item(header, payload, delta)

    def unpack(self, sender: str, item: Item) -> Copy | None:
        """Return the item itself, or its task if that is large; None if the omitted turns are not cached."""
        header, payload, delta = item
        if delta is None:
            if len(payload) >= self._min_bytes:
                task = decode(payload)
                self._store(header, History(task))
                return task
            return item
        if not delta.digest:
            task = decode(payload)
            history = History(task)
            self._learn(history, sender, delta)
            self._store(header, history)
            return task
        history = self._entries.get(header.id)
        turns = delta.turns
        if history is None or turns > len(history.raw_turns) or history.digest(turns) != delta.digest:
            return None
        known = history.raw_turns if turns == len(history.raw_turns) else history.raw_turns[:turns]
        task = decode_rest(payload, history.raw_input, known)
        before = history.size
        history.replace(task, turns)
        self._learn(history, sender, delta)
        self._account(header, history.size - before)
        return task

    def seen(self, task: Task) -> Mapping[str, int]:
        """Return the number of turns that each other peer has of a task; empty if it is not cached."""
        header = task.header
        history = self._entries.get(header.id) if self._entries else None
        return history.seen if history is not None and history.is_prefix_of(task) else {}

    def retain(self, members: Set[str]) -> None:
        """Drop the records of peers that are no longer members."""
        for history in self._entries.values():
            if not history.seen.keys() <= members:
                history.seen = {name: turns for name, turns in history.seen.items() if name in members}

    def drop(self, header: Header) -> None:
        """Drop the history of a task that has ended."""
        if self._entries:
            history = self._entries.pop(header.id, None)
            if history is not None:
                self._bytes -= history.size

    def _learn(self, history: History, sender: str, delta: DeltaInfo) -> None:
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
        self._bytes += size
        while self._bytes > self._max_bytes and self._entries:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.size


def _bytes(raw_turns: Iterable[msgspec.Raw]) -> int:
    return sum([len(raw) + _TURN_OVERHEAD for raw in raw_turns])
