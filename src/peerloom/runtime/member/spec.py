"""Define the specification that a member starts from, and the statistics that it reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from peerloom.protocol.view import Member
from peerloom.runtime.program import Program
from peerloom.runtime.settings import RunSettings
from peerloom.runtime.steps.error_counts import ErrorCount
from peerloom.services.llm.cache.client import CacheTally
from peerloom.services.llm.client.service import ClientSpec
from peerloom.services.secret import Secret, known
from peerloom.sink.totals import AgentTally, Totals
from peerloom.source.base import Source


@dataclass(frozen=True)
class MemberSpec:
    """Everything a member needs to start. Only feeders get the source, only peers the model client.

    Every member gets the secrets known to the driver, to mask them.
    """

    member: Member
    program: Program
    settings: RunSettings
    run_dir: Path
    provenance: Mapping[str, Any]
    source: Source | None = None
    llm: ClientSpec | None = None
    secrets: tuple[Secret, ...] = field(default_factory=known)


class MemberStats(msgspec.Struct, array_like=True):
    """The statistics of a member since it started; each kind of member fills in its own fields.

    Attributes:
        agents: the turns taken, whether or not their tasks finish.
        in_flight: the tasks in flight at this moment.
        totals: the committed rows, over the whole life of the run directory.
        notices: messages for the user since the last statistics.
        turns: the turns under way at this moment.
        usage_reports: the final usage reports of a peer, encoded.
        cache: the use of the reply cache by this process.
        shared_notices: messages shown once in a run, even if several members report them.
        errors: the errors whose counts have changed.
        stuck: whether the disk has no room for the member's files.
    """

    cpu_seconds: float = 0.0
    hops: int = 0
    in_flight: int = 0
    agents: dict[str, AgentTally] = {}
    totals: Totals | None = None
    notices: list[str] = []
    turns: int = 0
    usage_reports: bytes = b""
    cache: CacheTally | None = None
    shared_notices: list[str] = []
    errors: list[ErrorCount] = []
    stuck: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(MemberStats)


def encode_stats(stats: MemberStats) -> bytes:
    """Encode statistics as MessagePack."""
    return _encoder.encode(stats)


def decode_stats(data: bytes) -> MemberStats:
    """Decode statistics."""
    return _decoder.decode(data)
