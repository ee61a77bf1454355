"""Reading the records of a segment, whatever has happened to it.

A record that is not wanted is stepped over by its head; one that is wanted must have its CRC. Where there is
no good record, the walk goes on at the next marker that begins one: damage costs only what it touched.
"""

from collections.abc import Callable, Iterator

from peerloom.sink.journal.records import HEAD, LENGTH_MASK, MARKER, OVERHEAD, Record, is_whole
from peerloom.task import TaskId

_NO_HEAD = (b"", *[0] * 9)


class Walk:
    """The records of a segment that are of wanted tasks, in order.

    Args:
        data: the segment.
        wants: asked for the id of each record.
        check: whether the CRC of what is wanted is checked. Without, a payload may be damaged.

    Attributes:
        damaged: at how many places something was skipped, once the walk is over. A record that
            ends beyond the segment, at its end, is none: its writing was never finished.
    """

    def __init__(self, data: bytes, wants: Callable[[TaskId], bool], *, check: bool = True) -> None:
        self.damaged = 0
        self._data = data
        self._view = memoryview(data)
        self._wants = wants
        self._check = check

    def __iter__(self) -> Iterator[Record]:
        data, wants, check, unpack = self._data, self._wants, self._check, HEAD.unpack_from
        position, size = 0, len(data)
        last_start = size - OVERHEAD
        unchecked = -1  # where the record before began, if its CRC was not looked at
        while position < size:
            head = unpack(data, position) if position <= last_start else _NO_HEAD
            marker, length, inverse, kind, file, row, trial, attempt, hop, mark = head
            after = position + OVERHEAD + length
            if marker == MARKER and length ^ inverse == LENGTH_MASK and after <= size:
                id = TaskId(file, row, trial)
                if not wants(id):
                    unchecked, position = position, after
                    continue
                if not check or is_whole(self._view[position:after]):
                    crc = int.from_bytes(data[after - 4 : after], "little")
                    yield Record(kind, id, attempt, hop, mark, position, after, crc)
                    unchecked, position = -1 if check else position, after
                    continue
            # An unchecked record may have been cut short, and others begun in what should be its bytes.
            position, unchecked = self._resume(position if unchecked < 0 else unchecked, position), -1

    def _resume(self, bad: int, position: int) -> int:
        """Where the next good record after `bad` begins, or the end; the walk has come to `position`."""
        data = self._data
        found = data.find(MARKER, bad + 1)
        while found >= 0:
            if found + OVERHEAD <= len(data):
                after = found + OVERHEAD + int.from_bytes(data[found + 4 : found + 8], "little")
                if after <= len(data) and is_whole(self._view[found:after]):
                    self.damaged += 1
                    return found
            found = data.find(MARKER, found + 1)
        self.damaged += not self._unfinished(position)
        return len(data)

    def _unfinished(self, position: int) -> bool:
        """Whether a record begins here that was to end beyond the data."""
        rest = self._data[position : position + OVERHEAD]
        if len(rest) < OVERHEAD:
            return rest.startswith(MARKER) or MARKER.startswith(rest)
        length, inverse = (int.from_bytes(rest[at : at + 4], "little") for at in (4, 8))
        good = rest.startswith(MARKER) and length ^ inverse == LENGTH_MASK
        return good and position + OVERHEAD + length > len(self._data)
