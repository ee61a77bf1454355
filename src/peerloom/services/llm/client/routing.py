"""Which replica answers a call: a pure state machine, one in each client, with the clock as argument.

A call of a conversation goes where that conversation's prefix is cached: the replicas are ranked by a hash of
conversation and replica (rendezvous hashing), so when one comes or goes only its own conversations move. The
preferred one is passed over while it has more than its share of the calls under way (consistent hashing with
bounded loads, Mirrokni, Thorup, Zadimoghaddam 2018); calls without a conversation go where fewest are under
way.

A replica that cannot be reached, or fails several times in a row, is ejected for a while that doubles. Then
it is tried: if it looks healthy it is used again, and until it has answered a call its first failure ejects
it anew.
"""

import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from peerloom.errors import ConfigError
from peerloom.options import FREE, Count, Options, Positive

Affinity = Literal["conversation", "role", "turn", "none"]
"""What is kept on one replica: a task's calls, an agent's, an agent's calls about a task, or nothing."""

_GOLDEN = 0x9E3779B97F4A7C15
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing(Options):
    """How calls are spread over a service's replicas."""

    section: ClassVar[str] = "llm.routing"

    affinity: Annotated[Affinity, FREE] = "conversation"
    """What stays on one replica, which has its prefix: a task's calls, a role's, or a role's of a task."""
    imbalance: Annotated[float, Ge(1), FREE] = 1.25
    """A preferred replica may have so many times the average of calls under way."""
    eject_after: Annotated[Count, FREE] = 5
    """Failures in a row after which a replica is left out for a while; at once, if it cannot be reached."""
    eject_seconds: Annotated[Positive, FREE] = 0.5
    """How long, the first time; it doubles while the replica goes on failing."""
    eject_cap: Annotated[Positive, FREE] = 30.0
    """The longest that it is left out."""

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if self.eject_seconds > self.eject_cap:
            raise ConfigError(
                f"llm.routing.eject_seconds is {self.eject_seconds}: it must be at most "
                f"llm.routing.eject_cap, which is {self.eject_cap}"
            )

    def but(self, given: Mapping[str, Any]) -> "Routing":
        """The same, but for the fields given; the cap is never below the first time, unless it is given.

        Raises:
            ConfigError: as for those fields.
        """
        cap = max(self.eject_cap, given.get("eject_seconds", 0.0))
        return replace(self, **{"eject_cap": cap, **given})

    def key(self, session: str, role: str) -> str:
        """What the affinity of a call hangs on; empty for none."""
        match self.affinity:
            case "conversation":
                return session
            case "role":
                return role
            case "turn":
                return f"{session}/{role}" if session else ""
            case "none":
                return ""


class _Replica:
    __slots__ = ("back", "ejections", "failures", "hash", "live", "name", "outstanding", "tried")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hash = zlib.crc32(name.encode()) * _GOLDEN & _64_BITS
        self.outstanding = 0
        self.failures = 0  # in a row
        self.live = True
        self.ejections = 0  # since it last answered
        self.back = 0.0  # when an ejected one may be tried
        self.tried = False  # somebody is trying it now


class ReplicaRouter:
    """The replicas of one service as one client sees them, by name."""

    def __init__(self, routing: Routing, names: Sequence[str]) -> None:
        self._routing = routing
        self._replicas: dict[str, _Replica] = {}
        self._left: dict[str, int] = {}  # calls under way to those that are gone; they may come back
        self._live: list[_Replica] = []
        self._next = 0
        self.update(names)

    @property
    def names(self) -> list[str]:
        """All replicas, ejected ones too."""
        return list(self._replicas)

    @property
    def live(self) -> bool:
        """Whether any replica is in use."""
        return bool(self._live)

    @property
    def all_live(self) -> bool:
        """Whether all are, and there is one."""
        return len(self._live) == len(self._replicas) > 0

    @property
    def alone(self) -> bool:
        """Whether no more than one replica is in use."""
        return len(self._live) <= 1

    def update(self, names: Sequence[str]) -> None:
        """These are the replicas from now on; those that stay keep what is known of them."""
        before = self._replicas
        self._replicas = {name: before.get(name) or self._fresh(name) for name in names}
        for name, replica in before.items():
            if name not in self._replicas and replica.outstanding:
                self._left[name] = replica.outstanding
        self._sort()

    def pick(self, key: str, avoid: Collection[str] = ()) -> str | None:
        """The replica for a call, which is to be told of by `began`; None if none is in use.

        Args:
            key: what its affinity hangs on, see `Routing.key`.
            avoid: replicas that failed this call already; taken only if there is no other.
        """
        live = self._live
        if len(live) < 2:
            return live[0].name if live else None
        if avoid:
            live = [replica for replica in live if replica.name not in avoid] or live
        return self._best(live, key).name

    def due(self, now: float) -> str | None:
        """An ejected replica that may be tried now; seconds by any clock that does not go back."""
        for replica in self._replicas.values():
            if not replica.live and not replica.tried and replica.back <= now:
                return replica.name
        return None

    def until_due(self, now: float) -> float:
        """Seconds until an ejected replica may be tried; infinite if there is none, or somebody tries it."""
        waits = [each.back - now for each in self._replicas.values() if not (each.live or each.tried)]
        return max(0.0, min(waits, default=math.inf))

    def began(self, name: str) -> None:
        """A call is under way to that replica."""
        replica = self._replicas.get(name)
        if replica is not None:
            replica.outstanding += 1

    def ended(self, name: str) -> None:
        """The call is over, however."""
        replica = self._replicas.get(name)
        if replica is not None:
            replica.outstanding -= 1
        elif self._left.get(name, 0) > 1:
            self._left[name] -= 1
        else:
            self._left.pop(name, None)

    def succeeded(self, name: str) -> None:
        """A replica has answered; it is in use again, if it was not."""
        replica = self._replicas.get(name)
        if replica is not None and (replica.failures or replica.ejections or not replica.live):
            replica.failures = replica.ejections = 0
            replica.live = True
            self._sort()

    def failed(self, name: str, now: float, *, reached: bool = True) -> bool:
        """A replica has not answered a call, or could not even be reached; whether that ejects it."""
        replica = self._replicas.get(name)
        if replica is None:
            return False
        replica.failures += 1
        if not replica.live or (reached and replica.failures < self._routing.eject_after):
            return False
        self._eject(replica, now)
        return True

    def trying(self, name: str) -> None:
        """Somebody has begun to try an ejected replica."""
        replica = self._replicas.get(name)
        if replica is not None:
            replica.tried = True

    def tried(self, name: str, now: float, *, well: bool) -> None:
        """A trial is over: the replica is in use again, or ejected for longer."""
        replica = self._replicas.get(name)
        if replica is None:
            return
        replica.tried = False
        if not well:
            self._eject(replica, now)
        elif not replica.live:
            replica.live = True
            replica.failures = self._routing.eject_after - 1
            self._sort()

    def _fresh(self, name: str) -> _Replica:
        """A replica of which nothing is known but the calls under way to that address."""
        replica = _Replica(name)
        replica.outstanding = self._left.pop(name, 0)
        return replica

    def _eject(self, replica: _Replica, now: float) -> None:
        routing = self._routing
        replica.live = False
        replica.back = now + min(routing.eject_cap, routing.eject_seconds * 2.0 ** min(replica.ejections, 30))
        replica.ejections += 1
        self._sort()

    def _sort(self) -> None:
        self._live = [replica for replica in self._replicas.values() if replica.live]

    def _best(self, replicas: list[_Replica], key: str) -> _Replica:
        if key:
            most = self._routing.imbalance * (1 + sum(map(_outstanding, replicas))) / len(replicas)
            room = [replica for replica in replicas if replica.outstanding < most]
            seed = zlib.crc32(key.encode()) * _GOLDEN & _64_BITS
            return max(room, key=lambda replica: _mixed(replica.hash ^ seed))
        self._next += 1  # equals take turns
        turn = self._next % len(replicas)
        return min(replicas[turn:] + replicas[:turn], key=_outstanding)


def _outstanding(replica: _Replica) -> int:
    return replica.outstanding


def _mixed(number: int) -> int:
    """Splitmix64's finisher: numbers that differ in a bit end up far apart."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _64_BITS
    return number ^ number >> 31
