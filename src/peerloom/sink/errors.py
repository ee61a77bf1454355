"""Define the errors of writing to the run directory."""

from peerloom.errors import PeerloomError


class SinkError(PeerloomError):
    """Rows could not be made durable. The shard object is unusable; committed rows stay."""


class DiskFull(SinkError):
    """The disk is full. No row of the group was written; the same commit may be tried again."""


class ShardLost(SinkError):
    """A later incarnation has taken the shard, so the writes of this one have no effect."""
