"""What goes wrong in a chaos run: which processes are killed or stopped, in which order, at which moments."""

import contextlib
import signal
import time
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import psutil
from chaos_hosts import TwoHosts
from chaos_stage import Stage
from chaos_watch import Member, send

HOST_KILLS = ("peer", "peers", "sink", "feeder", "driver", "llm", "host", "cut-short", "cut-long")
KILLS = ("peer", "peers", "sink", "feeder", "driver", "cluster", "llm")
STOPS = ("peer", "sink", "feeder", "driver", "llm")
FIRST, LAST = 0.1, 0.8
"""The share of the rows between which faults strike."""
UP_SECONDS = 180.0


class Fault(NamedTuple):
    """One fault, and the share of the rows at which it strikes; `kind` as in the diary: `stop-sink-long`."""

    at: float
    kind: str


def plan(kills: int, stops: int, rng: Random, kinds: tuple[str, ...] = KILLS) -> list[Fault]:
    """So many kills and stops at random moments; each kind comes up before any comes again."""
    lengths = {target: rng.sample(("short", "long"), 2) for target in STOPS}
    drawn = deck(kinds, kills, rng)
    for index, target in enumerate(deck(STOPS, stops, rng)):
        drawn.append(f"stop-{target}-{lengths[target][index // len(STOPS) % 2]}")
    rng.shuffle(drawn)
    moments = sorted(rng.uniform(FIRST, LAST) for _ in drawn)
    return [Fault(at, kind) for at, kind in zip(moments, drawn, strict=True)]


def deck(kinds: tuple[str, ...], count: int, rng: Random) -> list[str]:
    """`count` kinds, dealt from shuffled decks of all of them."""
    dealt: list[str] = []
    while kinds and len(dealt) < count:
        dealt += rng.sample(kinds, len(kinds))
    return dealt[:count]


def strike(stage: Stage, kind: str, rng: Random, hosts: TwoHosts | None = None) -> None:
    """Let one fault happen; when this returns it is over, and what is to be resumed has been started."""
    stage.look()
    what, _, rest = kind.partition("-")
    if what == "stop":
        target, _, length = rest.partition("-")
        _stop(stage, target, length == "long", rng)
    elif hosts is not None and what in _ON_HOSTS:
        _ON_HOSTS[what](stage, hosts, rest == "long", rng)
    else:
        _STRIKES[kind](stage, rng)


def _kill_one(kind: str) -> Callable[[Stage, Random], None]:
    def kill(stage: Stage, rng: Random) -> None:
        _kill(stage, kind, [rng.choice(_some(stage, kind)).process])

    return kill


def _kill_peers(stage: Stage, rng: Random) -> None:
    there = _some(stage, "peer")
    chosen = rng.sample(there, rng.randint(min(2, len(there)), len(there)))
    _kill(stage, "peers", [member.process for member in chosen])


def _kill_driver(stage: Stage, rng: Random) -> None:
    assert stage.driver is not None
    stage.cluster()  # whoever is below it now is to be gone in the end
    _kill(stage, "driver", [psutil.Process(stage.driver.pid)])
    _resume(stage, rng)


def kill_everything(stage: Stage) -> None:
    """Kill the driver and all that it has started, at once."""
    assert stage.driver is not None
    everything = [psutil.Process(stage.driver.pid), *stage.cluster()]
    _kill(stage, "cluster", everything)
    psutil.wait_procs(everything, timeout=UP_SECONDS, callback=lambda _: stage.look())
    stage.driver.wait()
    stage.look()


def _kill_cluster(stage: Stage, rng: Random) -> None:
    kill_everything(stage)
    _resume(stage, rng)


def _resume(stage: Stage, rng: Random) -> None:
    assert stage.driver is not None
    stage.driver.wait()
    stage.pass_time(rng.uniform(0, 1))
    stage.resume()
    _some(stage, "peer")


def _kill_llm(stage: Stage, rng: Random) -> None:
    stage.look()
    after = time.time()
    stage.note(fault="llm", t=after)
    stage.llm.kill()
    stage.note(interrupted="llm", after=after, before=time.time())
    stage.pass_time(rng.uniform(0, 1))
    stage.llm.start()


def _kill_service(stage: Stage, rng: Random) -> None:
    """Kill a process of the services, which the run starts again."""
    stage.wait(lambda: bool(_services(stage)), UP_SECONDS, "a process of a service was up")
    _kill(stage, "service", [rng.choice(_services(stage))])


def _services(stage: Stage) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in stage.cluster():
        with contextlib.suppress(psutil.Error):
            if "peerloom.services.leased.host" in process.cmdline()[:4]:
                found.append(process)
    return found


def _far(stage: Stage, hosts: TwoHosts) -> list[Member]:
    return [member for member in stage.living("peer") if hosts.is_far(member)]


def _kill_host(stage: Stage, hosts: TwoHosts, _: bool, rng: Random) -> None:
    """The far host goes down with all that runs there, and comes up again with a new raylet."""
    stage.wait(lambda: bool(_far(stage, hosts)), UP_SECONDS, "a peer was up on the far host")
    _kill(stage, "host", hosts.processes(hosts.far))
    stage.pass_time(rng.uniform(0, 1))
    hosts.start_far()


def _cut(stage: Stage, hosts: TwoHosts, suspected: bool, rng: Random) -> None:
    """Cut the link, and heal it sooner or later than the far peers are suspected."""
    stage.wait(lambda: bool(_far(stage, hosts)), UP_SECONDS, "a peer was up on the far host")
    seconds = _seconds(stage, suspected, rng)
    stage.note(fault=f"cut-{'long' if suspected else 'short'}", t=time.time())
    stage.unheard(_far(stage, hosts))
    hosts.cut()
    try:
        stage.pass_time(seconds)
    finally:
        hosts.heal()
    stage.heard(late=seconds)


_ON_HOSTS: dict[str, Callable[[Stage, TwoHosts, bool, Random], None]] = {
    "host": _kill_host,
    "cut": _cut,
}
_STRIKES: dict[str, Callable[[Stage, Random], None]] = {
    "peer": _kill_one("peer"),
    "peers": _kill_peers,
    "sink": _kill_one("sink"),
    "feeder": _kill_one("feeder"),
    "driver": _kill_driver,
    "cluster": _kill_cluster,
    "llm": _kill_llm,
    "service": _kill_service,
}


def _kill(stage: Stage, kind: str, processes: list[psutil.Process]) -> None:
    stage.note(fault=kind, t=time.time())
    send(processes, signal.SIGKILL)
    stage.look()


def _stop(stage: Stage, target: str, suspected: bool, rng: Random) -> None:
    """Stop a process and wake it, sooner or later than a member is suspected."""
    seconds = _seconds(stage, suspected, rng)
    members: list[Member] = []
    if target == "llm":
        process = psutil.Process(stage.llm.process.pid)
    elif target == "driver":
        assert stage.driver is not None
        process = psutil.Process(stage.driver.pid)
    else:
        members = [rng.choice(_some(stage, target))]
        process = members[0].process
    stage.note(fault=f"stop-{target}-{'long' if suspected else 'short'}", t=time.time())
    stage.unheard(members)
    send([process], signal.SIGSTOP)
    stage.pass_time(seconds)
    send([process], signal.SIGCONT)
    stage.heard()


def _seconds(stage: Stage, suspected: bool, rng: Random) -> float:
    """How long a silence lasts that is to raise a suspicion, or not to."""
    return stage.shape.suspect_seconds * (rng.uniform(1.5, 2.0) if suspected else rng.uniform(0.1, 0.5))


def _some(stage: Stage, kind: str) -> list[Member]:
    """The living members of a kind; at least one."""
    stage.wait(lambda: bool(stage.living(kind)), UP_SECONDS, f"a {kind} was up")
    return stage.living(kind)
