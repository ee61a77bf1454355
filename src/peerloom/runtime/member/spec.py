"""What a process is told when it starts, and what it tells about itself."""

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
    """Everything a member needs to start. Only feeders get the source, only peers the model.

    Every member gets the secrets that the driver knows, to mask them.
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
    """A member's own figures since it started; each kind of member fills in what it knows.

    `agents` counts turns as they are made, whether or not their task ever finishes; `totals` counts
    rows as they are committed, over the whole life of the run directory.
    `in_flight` tasks are admitted and `turns` turns under way at this moment. `readings` are what a peer's
    meters say at its end; `cache` is what that was good for in this process. `facts` are notices that are
    told once in a run, whichever member comes upon them. `errors` are those that have changed.
    `stuck` is whether there is no room on the disk for what it has to write.
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
    """The figures as MessagePack."""
    return _encoder.encode(stats)


def decode_stats(data: bytes) -> MemberStats:
    """The figures in `data`."""
    return _decoder.decode(data)
