"""Define the settings of a run: its scale, engine, placement, and timeouts."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from peerloom.errors import ConfigError
from peerloom.options import FREE, SAME, Count, FailedShare, NotNegative, Options, Positive, Whole
from peerloom.protocol.view import FEEDER, PEER, SINK, Member
from peerloom.runtime.transport.compression import Compress
from peerloom.services.llm.cache.client import CacheSettings
from peerloom.services.llm.usage.budget import Budget
from peerloom.services.llm.usage.prices import UNKNOWN, Prices

PACKED_PEERS = 2


@dataclass(frozen=True)
class RoleSettings(Options):
    """The placement of one role's agents."""

    section: ClassVar[str] = "roles"

    replicas: Annotated[Count | None, FREE] = None
    """With `placement=spread`, the number of peers with this role; by default `peers`, else 1."""
    resources: Annotated[dict[str, NotNegative], FREE] = field(default_factory=dict[str, float])
    """With `placement=spread`, Ray resources that each of those peers needs, e.g. `num_gpus: 1`."""


@dataclass(frozen=True, kw_only=True)
class RecordOptions(Options):
    """The parts of a run that its rows record."""

    section: ClassVar[str] = "record"

    requests: Annotated[Literal["full", "delta", "off"], FREE] = "delta"
    """Write the requests sent to models to the rows: in full, as differences from earlier texts of the row,
    which readers restore, or not at all."""


@dataclass(frozen=True, kw_only=True)
class RunKeys(Options):
    """The keys of a configuration that the runtime reads as they are."""

    section: ClassVar[str] = ""

    trials: Annotated[Count, SAME] = 1
    """The number of times each row is run."""
    seed: Annotated[Whole, SAME] = 0
    """The seed that makes the run's choices reproducible, and sampling too if the server supports it."""
    budget: Budget = field(default_factory=Budget)
    record: RecordOptions = field(default_factory=RecordOptions)
    engine: Annotated[Literal["ray", "local"], FREE] = "ray"
    """Peers are Ray actors, or tasks of this one process."""
    placement: Annotated[Literal["packed", "spread"], FREE] = "packed"
    """Every peer hosts all roles, or each role has its own peers."""
    peers: Annotated[Count | None, FREE] = None
    """The number of peers in all (packed), or for each role (spread); the default depends on the machine."""
    partitions: Annotated[Count, FREE] = 1
    """The number of feeders that read the input in parallel."""
    shards: Annotated[Count, SAME] = 1
    """The number of sinks that write rows in parallel."""
    max_failed: Annotated[Whole | FailedShare | None, FREE] = None
    """Number (a whole number) or share (0.2) of failed rows above which a run stops; by default it stops if
    its first 20 rows all failed. With 1.0 it never stops."""
    heartbeat_seconds: Annotated[Positive, FREE] = 1.0
    """The interval at which a process is asked for a heartbeat."""
    suspect_seconds: Annotated[Positive, FREE] = 10.0
    """Silence after which a process is considered dead, and killed."""
    deliver_seconds: Annotated[Positive, FREE] = 30.0
    """Time that a delivery may stay unanswered before its receiver is suspected."""
    compress: Annotated[Compress, FREE] = "auto"
    """Compress messages between processes: only to other hosts (`auto`), `always`, or `never`."""
    histories: Annotated[NotNegative, FREE] = 128
    """Megabytes of large tasks that each peer caches, so that it is sent only new turns; 0 disables it."""


@dataclass(frozen=True, kw_only=True)
class RunSettings(RunKeys):
    """The settings of a run: its keys, and values that other keys resolve to.

    Args:
        in_flight: the maximum number of tasks in flight, over all feeders.
        roles: the placement of individual roles, if `spread`.
        journal: whether finished turns and calls are logged, so that the loss of a process repeats none.
        prices: the known prices of models.
        cache: where replies are stored for later runs; None for nowhere.
        timeouts: the seconds that a turn of a role may take, not counting its calls.
        address: the address of the Ray cluster.
        license: that of the input rows, if it is given.
    """

    in_flight: int = 64
    roles: Mapping[str, RoleSettings] = field(default_factory=dict[str, RoleSettings])
    journal: bool = True
    prices: Prices = UNKNOWN
    cache: CacheSettings | None = None
    timeouts: Mapping[str, float] = field(default_factory=dict[str, float])
    address: str | None = None
    license: str | None = None

    def replicas(self, role: str) -> int:
        """Return the number of peers with a role, if `spread`."""
        placed = self.roles.get(role)
        return (placed and placed.replicas) or self.peers or 1


MAX_IN_FLIGHT = 1_000_000
MAX_SECONDS = 86_400.0

ADJUSTABLE = ("in_flight", "heartbeat_seconds", "suspect_seconds")
"""The settings that can be changed during a run."""


def adjusted(settings: RunSettings, key: str, value: str) -> RunSettings:
    """Return the settings with one of `ADJUSTABLE` set to a value given as text.

    Raises:
        ConfigError: if the key cannot be changed, or the value is invalid.
    """
    if key not in ADJUSTABLE:
        raise ConfigError(f"{key} cannot be set while the run goes on: only {', '.join(ADJUSTABLE)} can")
    try:
        number = int(value) if key == "in_flight" else float(value)
    except ValueError:
        number = math.nan
    whole = key == "in_flight"
    minimum, maximum = (settings.partitions, MAX_IN_FLIGHT) if whole else (0, MAX_SECONDS)
    if not minimum <= number <= maximum or number == 0:  # NaN too
        must = f"a whole number, at least {minimum}" if whole else "a number of seconds above 0"
        must += f" and at most {maximum:,.0f}"
        why = ", one for each partition" if key == "in_flight" and minimum > 1 else ""
        raise ConfigError(f"{key}={value}: must be {must}{why}")
    return replace(settings, **{key: number})


def members(settings: RunSettings, roles: Iterable[str], first: int = 1) -> list[Member]:
    """Return the members of a run, each as incarnation `first`.

    Raises:
        ConfigError: if there are more partitions than tasks in flight, or the placement of roles is invalid.
    """
    known = tuple(roles)
    if settings.partitions > settings.in_flight:
        raise ConfigError(
            f"partitions={settings.partitions} is more than in_flight={settings.in_flight}: "
            "each partition needs a task of its own in flight"
        )
    if settings.roles and settings.placement == "packed":
        raise ConfigError(
            "roles: every peer hosts all roles in placement=packed; use placement=spread to place them"
        )
    for role in settings.roles:
        if role not in known:
            raise ConfigError(f"roles.{role}: the workflow has no such role; it has {', '.join(known)}")
    return [
        *(Member(FEEDER, index, first) for index in range(settings.partitions)),
        *(Member(SINK, index, first) for index in range(settings.shards)),
        *(Member(PEER, index, first, hosted) for index, hosted in enumerate(_placed(settings, known))),
    ]


def _placed(settings: RunSettings, roles: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the roles that each peer hosts."""
    if settings.placement == "packed":
        count = settings.peers or min(PACKED_PEERS, os.cpu_count() or 1)
        return [roles] * count
    return [(role,) for role in roles for _ in range(settings.replicas(role))]
