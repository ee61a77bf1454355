"""What one history is made of, drawn from its seed: members, tasks, and what will go wrong when.

Worlds are small, so that many fit in a second: what a protocol can get wrong, it can nearly always get
wrong with a few processes and a handful of tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peerloom.protocol.messages import (
    Ack,
    Deliver,
    Delivered,
    DoneReply,
    Prepare,
    Report,
    Suspect,
    ViewCommit,
)
from peerloom.protocol.view import FEEDER, PEER, SINK, Member
from peerloom.task import TaskId

ROLES = ("asker", "teller", "judge")

FAULTS = (
    ("census",),
    ("kill",),
    ("suspect",),
    ("stop",),
    ("many",),
    ("deadline",),
    ("deadline", "census"),
    ("kill", "stop", "suspect"),
    ("kill", "stop", "suspect", "many", "deadline", "census"),
    ("cut",),
    ("crash",),
    ("crash", "kill"),
    ("crash", "compact", "kill", "stop"),
    ("power",),
    ("power", "blackout", "compact"),
    ("damage", "kill", "crash"),
    ("full", "kill", "crash"),
    ("compact", "kill"),
    ("compact", "suspect", "stop"),
    ("cut", "crash", "stop"),
    ("heirs", "kill"),
    ("heirs", "compact"),
    ("service",),
    ("service", "kill", "suspect", "stop"),
    ("service", "crash", "heirs", "damage"),
)
"""Few kinds in each history: so each of them comes often, with all the others absent."""

LEASES = "service"

NEEDS_JOURNAL = (LEASES, "crash", "power", "blackout", "damage", "full", "compact", "heirs")

EQUAL = -2
"""As the number of calls of a turn: two equal ones, asked at once."""

ACQUIRE, STEP, RELEASE = "acquire", "step", "release"
SERVICES = ("annex", "store")
Plan = tuple[tuple[str, tuple[int, ...]], ...]
"""What an agent does with the services in one turn: acquire so many of each, a step on one, release all."""

AGENT, DISK = "agent", "disk"
SLOW = (
    (),
    (),
    (AGENT,),
    (Prepare, DISK),
    (Ack, DISK),
    (Ack, ViewCommit),
    (Deliver,),
    (Report,),
    (Delivered,),
    (Delivered, Ack),
    (Delivered, Suspect),
    (Delivered, Suspect, ViewCommit),
)
"""What is slow throughout a history: types of message, the agents, or the disks."""

TARGETS = ("", "", PEER, PEER, SINK, FEEDER)
"""Whom faults hit; anybody if it is empty."""

THEMES = (
    (("deadline", "deadline", "census", "suspect"), (Delivered, Suspect, ViewCommit), PEER),
    (("suspect", "stop"), (Prepare, DISK), SINK),
    (("kill", "suspect"), (Ack, ViewCommit, DISK), FEEDER),
    (("compact", "compact", "kill"), (DoneReply, AGENT), PEER),
    (("blackout",), (AGENT,), ""),
    (("heirs",), (AGENT,), ""),
    (("suspect", "kill"), (AGENT,), PEER),
)
"""Faults, slowness and target that fit: tasks in two places, late writers, feeders' heirs, late compaction,
attempts side by side."""

focus: list[tuple[tuple[str, ...], tuple[object, ...], str]] = []
"""A theme for all histories, if there is one: to look for something rare."""

FAULT_GAP = 60
"""Most steps between two faults; a census takes about thirty."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One history's fixed facts.

    `tasks` gives the roles on each task's way; a row that cannot be read has none and goes to its sink at
    once. `late` is the share of events put aside for long, but half of those of a kind that is `slow` in
    this history; `twice` is the share of messages sent twice; `lazy` processes sometimes put off what
    they could do now; `wire` encodes every message. A `hasty` driver does not wait long for a member to
    start. Where room is `scarce`, a peer that others can stand in for may never come, or not again.
    `faults` are pairs (step, kind), last first; they hit members of the kind `target`, if it names one.
    `calls` are the calls of each turn on a task's way, one after the other, or EQUAL. `plans` are what each
    turn does with services of which there are `capacity` leases each. With a `journal`,
    what was done is written down; `power` may fail; `sweep` has the journal emptied in the end. `poison`
    tasks kill their process at that hop.
    """

    roles: tuple[str, ...]
    members: tuple[Member, ...]
    partitions: int
    shards: int
    in_flight: int
    tasks: dict[TaskId, tuple[str, ...]]
    calls: dict[TaskId, tuple[int, ...]]
    plans: dict[TaskId, tuple[Plan, ...]]
    capacity: int
    journal: bool
    power: bool
    sweep: bool
    wire: bool
    lazy: bool
    late: float
    slow: tuple[object, ...]
    target: str
    hasty: bool
    scarce: bool
    twice: float
    faults: list[tuple[int, str]]
    poison: dict[TaskId, int]


def draw(random: Callable[[], float]) -> Scenario:
    """A scenario; `random` gives floats in [0, 1)."""
    shards = 1 + int(random() * 2)
    roles = ROLES[: 2 + int(random() * 2)]
    kinds, slow, target = _pick(random, FAULTS), _pick(random, SLOW), _pick(random, TARGETS)
    if focus or random() < 0.4:
        kinds, slow, target = _pick(random, focus or THEMES)
    faults: list[tuple[int, str]] = []
    step = int(random() * 40)
    for _ in range(int(random() * 7)):
        step += int(random() * (FAULT_GAP if random() < 0.6 else 6))
        faults.append((step, _pick(random, kinds)))
    if random() < 0.1:
        faults.append((int(random() * 3 * FAULT_GAP), "drain"))
    journal = random() < (0.9 if set(kinds) & set(NEEDS_JOURNAL) else 0.6)
    tasks = _tasks(random, roles)
    leases, capacity = journal and (LEASES in kinds or random() < 0.3), 1 + int(random() * 3)
    return Scenario(
        roles=roles,
        **members(random, roles, shards),
        shards=shards,
        tasks=tasks,
        calls=_calls(random, tasks) if journal else {id: (0,) * len(way) for id, way in tasks.items()},
        plans={id: _plans(random, len(way), capacity if leases else 0) for id, way in tasks.items()},
        capacity=capacity,
        journal=journal,
        power="power" in kinds or "blackout" in kinds,
        sweep=journal and random() < 0.15,
        wire=random() < 0.15,
        lazy=random() < 0.25,
        late=_pick(random, (0.0, 0.02, 0.1)),
        slow=slow,
        target=target,
        hasty=random() < 0.1,
        scarce=random() < 0.15,
        twice=_pick(random, (0.0, 0.0, 0.03, 0.1)),
        faults=sorted(faults, reverse=True),
        poison=_poison(random, tasks) if random() < 0.2 else {},
    )


def members(random: Callable[[], float], roles: tuple[str, ...], shards: int) -> dict[str, Any]:
    """Those facts of a scenario that may be others in each session; the shards are always the same."""
    partitions = 1 + int(random() * 2)
    return {
        "members": _members(random, roles, partitions, shards),
        "partitions": partitions,
        "in_flight": 1 + int(random() * 5),
    }


def _members(
    random: Callable[[], float], roles: tuple[str, ...], partitions: int, shards: int
) -> tuple[Member, ...]:
    peers = 2 + int(random() * 3)
    packed = random() < 0.3
    hosted: list[list[str]] = [list(roles) if packed else [] for _ in range(peers)]
    if not packed:
        for place in range(max(peers, len(roles))):
            hosted[place % peers].append(roles[place % len(roles)])
    return (
        *(Member(FEEDER, index, 0) for index in range(partitions)),
        *(Member(SINK, index, 0) for index in range(shards)),
        *(Member(PEER, index, 0, tuple(roles)) for index, roles in enumerate(hosted)),
    )


def _tasks(random: Callable[[], float], roles: tuple[str, ...]) -> dict[TaskId, tuple[str, ...]]:
    tasks: dict[TaskId, tuple[str, ...]] = {}
    trials = 1 + int(random() * 2)
    for number in range(1 + int(random() ** 3 * 20)):
        hops = 0 if random() < 0.08 else 1 + int(random() * 5)
        way = tuple(_pick(random, roles) for _ in range(hops))
        tasks[TaskId(number & 1, number // (2 * trials), number // 2 % trials)] = way
    return tasks


def _poison(random: Callable[[], float], tasks: dict[TaskId, tuple[str, ...]]) -> dict[TaskId, int]:
    return {id: int(random() * len(way)) for id, way in tasks.items() if way and random() < 0.3}


def _calls(
    random: Callable[[], float], tasks: dict[TaskId, tuple[str, ...]]
) -> dict[TaskId, tuple[int, ...]]:
    return {id: tuple(_pick(random, (0, 1, 1, 2, EQUAL)) for _ in way) for id, way in tasks.items()}


def _plans(random: Callable[[], float], hops: int, capacity: int) -> tuple[Plan, ...]:
    """What a task does with the services on its way; it may keep its leases to the end."""
    held: list[tuple[int, int]] = []
    way: list[Plan] = []
    for _ in range(hops):
        plan: list[tuple[str, tuple[int, ...]]] = []
        for _ in range(int(random() * 5) if capacity else 0):
            if not held:
                which = 1 + int(random() * 3)
                counts = tuple(1 + int(random() * capacity) if which & 1 << each else 0 for each in (0, 1))
                held = [(service, slot) for service, count in enumerate(counts) for slot in range(count)]
                plan.append((ACQUIRE, counts))
            elif random() < 0.25:
                held = []
                plan.append((RELEASE, ()))
            else:
                plan.append((STEP, _pick(random, held)))
        way.append(tuple(plan))
    return tuple(way)


def _pick(random: Callable[[], float], choices: Sequence[Any]) -> Any:
    return choices[int(random() * len(choices))]
