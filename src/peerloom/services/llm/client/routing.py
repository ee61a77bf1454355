"""Choose the replica for a call.

`ReplicaRouter` is a pure state machine, one in each client, with the time as an argument.

A call of a conversation goes to the replica that has the conversation's prefix cached: replicas are ranked by
a hash of conversation and replica (rendezvous hashing), so when a replica joins or leaves, only its own
conversations move. The preferred replica is skipped while it has more than its share of outstanding calls
(consistent hashing with bounded loads, Mirrokni, Thorup, Zadimoghaddam 2018). Calls without a conversation go
to the replica with the fewest outstanding calls.

A replica that cannot be reached, or fails several times in a row, is ejected for a time that doubles with
each ejection. Then it is probed. If the probe succeeds the replica is used again, on probation: one failure
before its first reply ejects it again.
"""

import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal, cast

from annotated_types import Ge

from peerloom.errors import ConfigError
from peerloom.options import FREE, Count, Options, Positive

Affinity = Literal["conversation", "role", "turn", "none"]
"""The calls that share a replica: those of a task, of a role, of a role within a task, or none."""

_GOLDEN = 0x9E3779B97F4A7C15
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing(Options):
    """How calls are distributed over the replicas of a service."""

    section: ClassVar[str] = "llm.routing"

    affinity: Annotated[Affinity, FREE] = "conversation"
    """The calls that share a replica and its prefix cache: a task's, a role's, or a role's within a task."""
    imbalance: Annotated[float, Ge(1), FREE] = 1.25
    """The maximum load of a preferred replica, as a multiple of the average outstanding calls."""
    eject_after: Annotated[Count, FREE] = 5
    """Failures in a row after which a replica is ejected; an unreachable replica is ejected at once."""
    eject_seconds: Annotated[Positive, FREE] = 0.5
    """Seconds of the first ejection; they double while the replica keeps failing."""
    eject_cap: Annotated[Positive, FREE] = 30.0
    """Seconds of the longest ejection."""

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if self.eject_seconds > self.eject_cap:
            raise ConfigError(
                f"llm.routing.eject_seconds is {self.eject_seconds}: it must be at most "
                f"llm.routing.eject_cap, which is {self.eject_cap}"
            )

    def with_changes(self, changes: Options | Mapping[str, Any] | None) -> "Routing":
        """Return a `Routing` that is given, or a copy with the given keys that are not None.

        The cap is raised to `eject_seconds` unless it is given.

        Raises:
            ConfigError: if a field has an invalid value.
        """
        if isinstance(changes, Routing):
            return changes
        keys: Mapping[str, Any] = (
            asdict(cast("Any", changes)) if isinstance(changes, Options) else changes or {}
        )
        given = {name: value for name, value in keys.items() if value is not None}
        cap = max(self.eject_cap, given.get("eject_seconds", 0.0))
        return replace(self, **{"eject_cap": cap, **given})

    def key(self, session: str, role: str) -> str:
        """Return the affinity key of a call; empty for none."""
        match self.affinity:
            case "conversation":
                return session
            case "role":
                return role
            case "turn":
                return f"{session}/{role}" if session else ""
            case "none":
                return ""


@dataclass(slots=True)
class _Replica:
    name: str
    hash: int
    outstanding: int
    failures: int = 0  # in a row
    live: bool = True
    ejections: int = 0  # since it last answered
    probe_at: float = 0.0  # while ejected: the time of the next probe
    probing: bool = False


class ReplicaRouter:
    """The replicas of one service in one client, by name."""

    def __init__(self, routing: Routing, names: Sequence[str]) -> None:
        self._routing = routing
        self._known: dict[
            str, _Replica
        ] = {}  # with removed ones, which may have outstanding calls, or return
        self._replicas: dict[str, _Replica] = {}
        self._live: list[_Replica] = []
        self._next = 0
        self.update(names)

    @property
    def names(self) -> list[str]:
        """All replicas, including ejected ones."""
        return list(self._replicas)

    @property
    def live(self) -> bool:
        """Whether any replica is in use."""
        return bool(self._live)

    @property
    def all_live(self) -> bool:
        """Whether there are replicas, and all are in use."""
        return len(self._live) == len(self._replicas) > 0

    @property
    def single(self) -> bool:
        """Whether at most one replica is in use."""
        return len(self._live) <= 1

    def update(self, names: Sequence[str]) -> None:
        """Replace the replicas; those that stay keep their state, and those that return their calls."""
        for name in (each for each in names if each not in self._replicas):
            outstanding = self._known[name].outstanding if name in self._known else 0
            hash_ = zlib.crc32(name.encode()) * _GOLDEN & _64_BITS
            self._known[name] = _Replica(name, hash_, outstanding)
        self._replicas = {name: self._known[name] for name in names}
        self._update_live()

    def pick(self, key: str, avoid: Collection[str] = ()) -> str | None:
        """Return the replica for a call, to be reported by `began`; None if no replica is in use.

        Args:
            key: the affinity key of the call; see `Routing.key`.
            avoid: replicas that already failed this call, used only if there is no other.
        """
        live = self._live
        if len(live) < 2:
            return live[0].name if live else None
        if avoid:
            live = [replica for replica in live if replica.name not in avoid] or live
        return self._best(live, key).name

    def due(self, now: float) -> str | None:
        """Return an ejected replica that may be probed now; `now` is by any monotonic clock."""
        for replica in self._replicas.values():
            if not replica.live and not replica.probing and replica.probe_at <= now:
                return replica.name
        return None

    def until_due(self, now: float) -> float:
        """Return the seconds until the next probe is due; infinite if none is, or all are under way."""
        waits = [each.probe_at - now for each in self._replicas.values() if not (each.live or each.probing)]
        return max(0.0, min(waits, default=math.inf))

    def began(self, name: str) -> None:
        """Count a call to a replica as outstanding."""
        self._known[name].outstanding += 1

    def ended(self, name: str) -> None:
        """Stop counting a call as outstanding, whether it succeeded or failed."""
        self._known[name].outstanding -= 1

    def succeeded(self, name: str) -> None:
        """Record a reply of a replica, which ends its ejection."""
        replica = self._known[name]
        if replica.failures or replica.ejections or not replica.live:
            replica.failures = replica.ejections = 0
            replica.live = True
            self._update_live()

    def failed(self, name: str, now: float, *, reached: bool = True) -> bool:
        """Record a failure of a replica that was `reached` or not; return whether that ejects it."""
        replica = self._known[name]
        replica.failures += 1
        if not replica.live or (reached and replica.failures < self._routing.eject_after):
            return False
        self._eject(replica, now)
        return True

    def probe_began(self, name: str) -> None:
        """Record that a probe of an ejected replica has begun."""
        self._known[name].probing = True

    def probe_ended(self, name: str, now: float, *, healthy: bool) -> None:
        """Use a probed replica again if it is healthy, or eject it for longer."""
        replica = self._known[name]
        replica.probing = False
        if not healthy:
            self._eject(replica, now)
        elif not replica.live:
            replica.live = True
            replica.failures = self._routing.eject_after - 1
            self._update_live()

    def _eject(self, replica: _Replica, now: float) -> None:
        routing = self._routing
        replica.live = False
        seconds = min(routing.eject_cap, routing.eject_seconds * 2.0 ** min(replica.ejections, 30))
        replica.probe_at = now + seconds
        replica.ejections += 1
        self._update_live()

    def _update_live(self) -> None:
        self._live = [replica for replica in self._replicas.values() if replica.live]

    def _best(self, replicas: list[_Replica], key: str) -> _Replica:
        if key:
            bound = self._routing.imbalance * (1 + sum(map(_outstanding, replicas))) / len(replicas)
            below = [replica for replica in replicas if replica.outstanding < bound]
            seed = zlib.crc32(key.encode()) * _GOLDEN & _64_BITS
            return max(below, key=lambda replica: _mixed(replica.hash ^ seed))
        self._next += 1  # ties are broken round robin
        turn = self._next % len(replicas)
        return min(replicas[turn:] + replicas[:turn], key=_outstanding)


_outstanding = attrgetter("outstanding")


def _mixed(number: int) -> int:
    """Return a number mixed by the finalizer of Splitmix64, so that similar inputs differ widely."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _64_BITS
    return number ^ number >> 31
