"""Tasks of the world as they really travel, and peers that remember them badly.

A turn is a token of the ledger, and so is a saved call. A peer's histories are the real ones, but now and
then one is forgotten, or it is believed of somebody that he has turns which he may never have seen.
"""

from typing import TYPE_CHECKING

import msgspec

from peerloom.protocol.histories import Histories
from peerloom.protocol.messages import Copy, Item
from peerloom.task import SCHEMA_VERSION, End, Header, SavedCall, Task, decode, encode

if TYPE_CHECKING:
    from world import World

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


def opened(copy: Copy) -> tuple[Task, tuple[int, ...], tuple[int, ...]]:
    """A task that has arrived: itself, its turns, and its saved calls."""
    task = decode(copy.payload) if isinstance(copy, Item) else copy
    turns = tuple([_number(raw) for raw in task.raw_turns])
    return task, turns, tuple([_number(call.reply) for call in task.calls])


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


class Forgetful(Histories):
    """Histories of which some get lost, or are wrong."""

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(name, world.scenario.histories, min_bytes=0)
        self._world = world
        self._forgets = world.scenario.forgets

    def pack(self, destination: str, copy: Copy, full: bool) -> Item:
        """As ever, but for what goes wrong before."""
        if isinstance(copy, Task):
            self._go_wrong(copy.header, destination)
        item = super().pack(destination, copy, full)
        self._world.shortened += item.delta is not None and item.delta.digest != b""
        return item

    def unpack(self, sender: str, item: Item) -> Copy | None:
        """As ever, but for what goes wrong before."""
        self._go_wrong(item.header, sender)
        copy = super().unpack(sender, item)
        self._world.missing += copy is None
        return copy

    def _go_wrong(self, header: Header, other: str) -> None:
        """The task at hand is forgotten here, or the other peer believed to have seen some of it, or all."""
        random = self._world.random
        if not self._forgets or random() >= self._forgets:
            return
        history = self._entries.get(header.id)
        if history is None:
            return
        kind = random()
        if kind < 0.3:
            self.drop(header)
        elif kind < 0.6:
            history.seen[other] = len(history.raw_turns)
        else:
            history.seen[other] = int(random() * (len(history.raw_turns) + 1))
