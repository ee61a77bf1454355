"""What goes wrong in a history: processes die, stop, are suspected wrongly, or wait too long.

Half of the time it hits somebody who has just taken a delivery and not been heard yet: that is when a
task may be in two places.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from compaction import compact
from processes import DEAD, FROZEN, RUNNING, Process

from peerloom.protocol.messages import Ack, Deliver, Delivered
from peerloom.protocol.view import FEEDER

if TYPE_CHECKING:
    from driver import Driver
    from world import World


def strike(world: "World", kind: str) -> None:
    """Let one fault happen, of a kind named in `scenario.FAULTS`."""
    if kind in OF_THE_RUN:
        OF_THE_RUN[kind](world)
    elif kind in OF_THE_DRIVER:
        if world.driver.state is not DEAD:
            OF_THE_DRIVER[kind](world.driver)
    elif kind == "deadline":
        _miss_deadline(world)
    elif kind == "many":
        victims = _unheard(world) if world.random() < 0.5 else []
        for victim in victims or [_victim(world) for _ in range(2 + int(world.random() ** 2 * 5))]:
            _lose(world, victim, ("kill", "stop", "suspect")[int(world.random() * 3)])
    else:
        _lose(world, _victim(world), kind)


def _lose(world: "World", victim: Process | None, kind: str) -> None:
    if victim is None:
        return
    if kind == "kill":
        world.kill(victim)
    elif kind == "suspect":
        if victim.driver.state is not DEAD:
            victim.driver.died(victim.name)
            victim.driver.after()
    elif kind == "stop" and victim.state is RUNNING:
        victim.state = FROZEN
        world.put(victim.driver, victim.driver.silent, victim)
        world.put_late(world.nature, world.nature.wake, victim)


def _victim(world: "World") -> Process | None:
    target = world.scenario.target
    choices = _unheard(world) if world.random() < 0.5 else []
    choices = choices or [process for process in world.processes.values() if process.state is not DEAD]
    if target:
        choices = [process for process in choices if process.member.kind == target] or choices
    return choices[int(world.random() * len(choices))] if choices else None


def _unheard(world: "World") -> list[Process]:
    """Whose answers and acknowledgements are still on their way."""
    letters = (*world.letters(Delivered), *world.letters(Ack))
    return list(dict.fromkeys(sender for _, (sender, _) in letters if sender.state is not DEAD))


def _miss_deadline(world: "World") -> None:
    """Somebody waits no longer for the answer to a delivery, though it may have been taken.

    If a census begins at that moment, the suspicion comes too late to count.
    """
    waits = [(to, sender.name, answer.seq) for to, (sender, answer) in world.letters(Delivered)]
    if not waits or world.random() < 0.3:
        waits += [(sender, to.name, deliver.seq) for to, (sender, deliver) in world.letters(Deliver)]
    if waits:
        sender, receiver, seq = waits[int(world.random() * len(waits))]
        if sender.state is not RUNNING or world.random() < 0.3:
            world.put(sender, sender.unanswered, (receiver, seq))
            return
        sender.unanswered((receiver, seq))
        sender.after()
        if world.random() < 0.6 and world.driver.state is not DEAD:
            world.driver.ask_census()


def _crash(world: "World") -> None:
    world.sessions.crash(world.random() if world.random() < 0.6 else 0.0)


def _damage(world: "World") -> None:
    record = world.disk.damage(world.random)
    if record is not None:
        world.ledger.lost(record)


def _fill(world: "World") -> None:
    if not world.disk.full:
        world.disk.full = True
        world.put_late(world.nature, world.nature.room, None)


def _leave_to_heirs(world: "World") -> None:
    """A feeder dies, and some time later a peer."""
    feeders = [process for process in world.living() if process.member.kind == FEEDER]
    if feeders:
        world.kill(feeders[int(world.random() * len(feeders))])
        world.put_late(world.nature, world.nature.inherit, None)


def _black_out(world: "World") -> None:
    """The power fails in, or after, a compaction."""
    compact(world)
    world.put_late(world.nature, world.nature.blackout, None)


OF_THE_RUN: dict[str, Callable[["World"], None]] = {
    "crash": _crash,
    "power": lambda world: world.sessions.lose_power(),
    "damage": _damage,
    "full": _fill,
    "compact": compact,
    "blackout": _black_out,
    "cut": lambda world: world.network.cut(),
    "heirs": _leave_to_heirs,
    "service": lambda world: world.supplies.kill(),
}
OF_THE_DRIVER: dict[str, Callable[["Driver"], None]] = {
    "census": lambda driver: driver.ask_census(),
    "drain": lambda driver: driver.drain(),
}
