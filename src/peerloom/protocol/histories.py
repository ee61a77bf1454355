"""What a peer remembers of large tasks, so that what another peer has already need not go there again.

A peer keeps the newest copy that it has seen or made of each large task, as far as there is room, and with it
who else has seen how many turns. To such a peer only the turns after these travel, with a digest of all that
was left out: the input and each turn, chained. The receiver goes on from its own history if that has the very
same digest, and otherwise does not take the copy, which is then sent whole.

So nothing here has to be right for a task to be right. Every copy is whole wherever it is held, whatever is
forgotten here; what is believed of another peer may be wrong, which costs one more message; and a history
that has taken another way since a census has another digest, even at an equal attempt and hop.
"""

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set

import msgspec

from peerloom.protocol.messages import Copy, DeltaInfo, Item
from peerloom.task import Header, Task, TaskId, decode, decode_rest, encode, encode_rest

MIN_BYTES = 32 << 10
"""An encoded task below this size always travels whole: that costs less than to remember it."""

_DIGEST = 16
_TURN_OVERHEAD = 96  # bytes of memory that a turn takes beside its own
_TASK_OVERHEAD = 1_000  # and a task


class History:
    """One task's input and turns as of some copy, and who else has seen how many of these turns."""

    __slots__ = ("_digests", "raw_input", "raw_turns", "seen", "size")

    def __init__(self, task: Task) -> None:
        self.raw_input = task.raw_input
        self.raw_turns = task.raw_turns
        self.seen: dict[str, int] = {}
        self.size = _TASK_OVERHEAD + len(task.raw_input) + _bytes(task.raw_turns)
        self._digests = bytearray()  # at each length from 0 on, as far as somebody has asked

    def digest(self, turns: int) -> bytes:
        """The digest of the input and so many turns; of each only once."""
        digests = self._digests
        while len(digests) <= turns * _DIGEST:
            done = len(digests) // _DIGEST
            chain = hashlib.sha256(digests[-_DIGEST:])
            chain.update(self.raw_turns[done - 1] if done else self.raw_input)
            digests += chain.digest()[:_DIGEST]
        return bytes(digests[turns * _DIGEST : (turns + 1) * _DIGEST])

    def is_prefix_of(self, task: Task) -> bool:
        """Whether a task was made from this very history. Pieces are made for one place, and never moved."""
        turns = len(self.raw_turns)
        if turns == 0:
            return task.raw_input is self.raw_input
        return len(task.raw_turns) >= turns and task.raw_turns[turns - 1] is self.raw_turns[turns - 1]

    def replace(self, task: Task, shared: int) -> None:
        """Go over to a task whose first `shared` turns are those here."""
        if shared < len(self.raw_turns):
            del self._digests[(shared + 1) * _DIGEST :]
            self.size -= _bytes(self.raw_turns[shared:])
            self.seen = {name: min(turns, shared) for name, turns in self.seen.items()}
        self.size += _bytes(task.raw_turns[shared:])
        self.raw_turns = task.raw_turns


class Histories:
    """The histories of one peer; also how its tasks are packed.

    Args:
        name: the peer's name.
        most: bytes to be kept, about; with 0 all tasks travel whole.
        min_bytes: see `MIN_BYTES`.
    """

    def __init__(self, name: str, max_bytes: int, min_bytes: int = MIN_BYTES) -> None:
        self._name = name
        self._max_bytes = max_bytes
        self._min_bytes = min_bytes if max_bytes else sys.maxsize
        self._entries: OrderedDict[TaskId, History] = OrderedDict()  # the one used last is last
        self._bytes = 0

    @property
    def size(self) -> int:
        """The bytes that are kept."""
        return self._bytes

    def pack(self, destination: str, copy: Copy, full: bool) -> Item:
        """A copy as it travels: without what the destination has seen, unless it must go `whole`.

        Of a task that has ended nothing is kept: it does not come back.
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
        """The item as it is, or its task if that is large; None if what was left out is not here."""
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
        """Who else has seen how many turns of a task, if it is one that is kept."""
        header = task.header
        history = self._entries.get(header.id) if self._entries else None
        return history.seen if history is not None and history.is_prefix_of(task) else {}

    def retain(self, members: Set[str]) -> None:
        """Forget what peers have seen that are no members any more."""
        for history in self._entries.values():
            if not history.seen.keys() <= members:
                history.seen = {name: turns for name, turns in history.seen.items() if name in members}

    def drop(self, header: Header) -> None:
        """Forget a task that has come to its end."""
        if self._entries:
            history = self._entries.pop(header.id, None)
            if history is not None:
                self._bytes -= history.size

    def _learn(self, history: History, sender: str, delta: DeltaInfo) -> None:
        """What has been said of who has seen the task, and that its sender has."""
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
        """A history has been used, and takes so many bytes more: others may have to make room for it."""
        self._entries.move_to_end(header.id)
        self._bytes += size
        while self._bytes > self._max_bytes and self._entries:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.size


def _bytes(raw_turns: Iterable[msgspec.Raw]) -> int:
    return sum([len(raw) + _TURN_OVERHEAD for raw in raw_turns])
