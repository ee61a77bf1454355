"""Read the records of a segment, and skip damage.

An unwanted record is skipped by its header; a wanted record must have a correct CRC. At a damaged record the
walk resumes at the next intact one, so damage costs only the records it touches.
"""

from collections.abc import Callable, Iterator

from peerloom.sink.journal.records import HEAD, LENGTH_MASK, MARKER, OVERHEAD, Record, is_intact
from peerloom.task import TaskId

_NO_HEAD = (b"", *[0] * 9)


class Walk:
    """The records of a segment that belong to wanted tasks, in order.

    Attributes:
        damaged: the number of damaged places that were skipped, once the walk is over. An incomplete record
            at the segment's end does not count: its writing was never finished.
    """

    def __init__(self, data: bytes, wants: Callable[[TaskId], bool]) -> None:
        self.damaged = 0
        self._data = data
        self._view = memoryview(data)
        self._wants = wants

    def __iter__(self) -> Iterator[Record]:
        data, wants, unpack = self._data, self._wants, HEAD.unpack_from
        position, size = 0, len(data)
        last_start = size - OVERHEAD
        unchecked = -1  # the start of the previous record if its CRC was not checked
        while position < size:
            head = unpack(data, position) if position <= last_start else _NO_HEAD
            marker, length, inverse, kind, file, row, trial, attempt, hop, mark = head
            after = position + OVERHEAD + length
            if marker == MARKER and length ^ inverse == LENGTH_MASK and after <= size:
                id = TaskId(file, row, trial)
                if not wants(id):
                    unchecked, position = position, after
                    continue
                if is_intact(self._view[position:after]):
                    crc = int.from_bytes(data[after - 4 : after], "little")
                    yield Record(kind, id, attempt, hop, mark, position, after, crc)
                    unchecked, position = -1, after
                    continue
            # An unchecked record may be truncated, so that other records begin within its nominal bytes.
            position, unchecked = self._resume(position if unchecked < 0 else unchecked, position), -1

    def _resume(self, bad: int, position: int) -> int:
        """Return the start of the next intact record after `bad`; `position` is where there was none."""
        data = self._data
        found = data.find(MARKER, bad + 1)
        while found >= 0:
            if found + OVERHEAD <= len(data):
                after = found + OVERHEAD + int.from_bytes(data[found + 4 : found + 8], "little")
                if after <= len(data) and is_intact(self._view[found:after]):
                    self.damaged += 1
                    return found
            found = data.find(MARKER, found + 1)
        self.damaged += not self._unfinished(position)
        return len(data)

    def _unfinished(self, position: int) -> bool:
        """Return whether a record begins here whose end is missing."""
        rest = self._data[position : position + OVERHEAD]
        if len(rest) < OVERHEAD:
            return rest.startswith(MARKER) or MARKER.startswith(rest)
        length, inverse = (int.from_bytes(rest[at : at + 4], "little") for at in (4, 8))
        valid = rest.startswith(MARKER) and length ^ inverse == LENGTH_MASK
        return valid and position + OVERHEAD + length > len(self._data)
