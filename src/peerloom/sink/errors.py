"""What can go wrong between a finished task and the disk."""

from peerloom.errors import PeerloomError


class SinkError(PeerloomError):
    """Rows could not be made durable. The shard object is of no further use; what was committed stays."""


class DiskFull(SinkError):
    """There is no room for a group of rows. None of it was written; the same commit may be tried again."""


class ShardLost(SinkError):
    """A later incarnation has taken the shard. What this one writes goes nowhere."""
