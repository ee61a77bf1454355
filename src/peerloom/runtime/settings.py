"""Define the settings of a run: its scale, engine, placement, and timeouts."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from peerloom.errors import ConfigError
from peerloom.protocol.view import FEEDER, PEER, SINK, Member
from peerloom.runtime.transport.compression import Compress
from peerloom.services.llm.cache.client import CacheSettings
from peerloom.services.llm.usage.budget import Budget
from peerloom.services.llm.usage.prices import UNKNOWN, Prices

PACKED_PEERS = 2


@dataclass(frozen=True)
class RoleSettings:
    """The placement of one role's agents in placement `spread`.

    `replicas` is the number of peers that host the role. `resources` are the Ray resources of each, by
    Ray's names (`num_cpus`, `num_gpus`, or a custom one).
    """

    replicas: int = 1
    resources: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run that do not change its rows.

    Args:
        engine: the engine that runs the members.
        placement: `packed` peers host all roles, `spread` peers host one role each.
        peers: the number of peers if `packed`, or the default replicas of each role if `spread`.
        roles: the placement of individual roles, if `spread`.
        in_flight: the maximum number of tasks in flight, over all feeders.
        trials: the number of tasks for each input row.
        seed: the seed of the run.
        partitions: the number of feeders.
        shards: the number of sinks.
        heartbeat_seconds: the interval between two heartbeats of a member.
        suspect_seconds: the time a member has to answer a heartbeat.
        deliver_seconds: the time a member has to answer a delivery.
        journal: whether finished turns and calls are logged, so that the loss of a process repeats none.
        compress: which connections between members are compressed.
        histories: the megabytes in which each peer caches the histories of large tasks; 0 disables it.
        budget: the maximum usage of all sessions together.
        prices: the known prices of models.
        cache: where replies are stored for later runs.
        max_failed: the number or share of rows that may fail; see `FailureLimit`.
        timeouts: the seconds that a turn of a role may take, not counting its calls.
        address: the address of the Ray cluster.
    """

    engine: Literal["ray", "local"] = "ray"
    placement: Literal["spread", "packed"] = "packed"
    peers: int | None = None
    roles: Mapping[str, RoleSettings] = field(default_factory=dict[str, RoleSettings])
    in_flight: int = 64
    trials: int = 1
    seed: int = 0
    partitions: int = 1
    shards: int = 1
    heartbeat_seconds: float = 1.0
    suspect_seconds: float = 10.0
    deliver_seconds: float = 30.0
    journal: bool = True
    compress: Compress = "auto"
    histories: float = 128
    budget: Budget = field(default_factory=Budget)
    prices: Prices = UNKNOWN
    cache: CacheSettings | None = None
    max_failed: float | None = None
    timeouts: Mapping[str, float] = field(default_factory=dict[str, float])
    address: str | None = None


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
    default = RoleSettings(replicas=settings.peers or 1)
    return [(role,) for role in roles for _ in range(settings.roles.get(role, default).replicas)]
