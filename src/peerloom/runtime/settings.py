"""How wide a run is, where it runs, and how soon it suspects a silent process."""

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
    """Where the agents of one role run, in placement `spread`.

    `replicas` is the number of peers that host the role; `resources` are Ray resources of each, by
    Ray's names (`num_cpus`, `num_gpus`, or a custom one).
    """

    replicas: int = 1
    resources: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class RunSettings:
    """Everything about a run's shape that does not change its rows.

    `peers` is the number of peers in placement `packed`, and the default number of replicas of each
    role in `spread`. `in_flight` counts tasks over all feeders. `heartbeat_seconds` is how often a
    member is asked for a sign of life, `suspect_seconds` how long it may take to answer, and
    `deliver_seconds` how long a delivery may stay unanswered. With `journal`, what a lost process had
    done is not done again. `compress` says which of the members' connections are: those to other hosts,
    all, or none. `histories` are the megabytes in which each peer remembers large tasks, so that
    what it has seen of them need not come again; 0 is none. `budget` is the most that all sessions together
    may use, `max_failed` how many rows or which share of them may fail (see `FailureLimit`), `prices` what is
    known of costs, and `cache` where replies are kept for later runs.
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


MOST_IN_FLIGHT = 1_000_000
MOST_SECONDS = 86_400.0

ADJUSTABLE = ("in_flight", "heartbeat_seconds", "suspect_seconds")
"""What can be set while a run goes on."""


def adjusted(settings: RunSettings, key: str, value: str) -> RunSettings:
    """The settings with one of `ADJUSTABLE` set to what a user wrote.

    Raises:
        ConfigError: if the key is none of them, or the value is not one it can have.
    """
    if key not in ADJUSTABLE:
        raise ConfigError(f"{key} cannot be set while the run goes on: only {', '.join(ADJUSTABLE)} can")
    try:
        number = int(value) if key == "in_flight" else float(value)
    except ValueError:
        number = math.nan
    whole = key == "in_flight"
    least, most = (settings.partitions, MOST_IN_FLIGHT) if whole else (0, MOST_SECONDS)
    if not least <= number <= most or number == 0:  # NaN too
        must = f"a whole number, at least {least}" if whole else "a number of seconds above 0"
        must += f" and at most {most:,.0f}"
        why = ", one for each partition" if key == "in_flight" and least > 1 else ""
        raise ConfigError(f"{key}={value}: must be {must}{why}")
    return replace(settings, **{key: number})


def members(settings: RunSettings, roles: Iterable[str], first: int = 1) -> list[Member]:
    """The members of a run, each as its incarnation number `first`.

    Raises:
        ConfigError: if a role that does not exist is placed.
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
    """The roles each peer hosts."""
    if settings.placement == "packed":
        count = settings.peers or min(PACKED_PEERS, os.cpu_count() or 1)
        return [roles] * count
    default = RoleSettings(replicas=settings.peers or 1)
    return [(role,) for role in roles for _ in range(settings.roles.get(role, default).replicas)]
