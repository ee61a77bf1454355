"""What goes wrong in a history: processes die, stop, are suspected wrongly, or wait too long.

Half of the time it hits somebody who has just taken a delivery and not been heard yet: that is when a
task may be in two places.
"""

from typing import TYPE_CHECKING

from processes import DEAD, FROZEN, RUNNING, Process

from peerloom.protocol.messages import Ack, Deliver, Delivered

if TYPE_CHECKING:
    from world import World


def strike(world: "World", kind: str) -> None:
    """Let one fault happen, of a kind named in `scenario.FAULTS`."""
    if kind == "census":
        world.driver.ask_census()
    elif kind == "drain":
        world.driver.drain()
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
        world.driver.died(victim.name)
        world.driver.after()
    elif kind == "stop" and victim.state is RUNNING:
        victim.state = FROZEN
        world.put(world.driver, world.driver.silent, victim)
        world.put_late(world.driver, world.driver.wake, victim)


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
        if world.random() < 0.6:
            world.driver.ask_census()
