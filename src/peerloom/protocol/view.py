"""Membership: who takes part, under a number that only grows.

A view lists the living members. A process that is lost never returns under its old name: its
replacement is a new incarnation, and whatever a fenced process still says carries an older view.
"""

from collections.abc import Set
from functools import cached_property

import msgspec

from peerloom.idset import partition_of
from peerloom.task import TaskId

PEER = "peer"
SINK = "sink"
FEEDER = "feeder"
ALONE = "alone"
"""A peer, of all roles, for the suspects of one partition: they may kill it, and nothing else is there."""

TO_SINK = "<sink>"
"""As the target of a task: the sink whose shard owns its row."""

TO_ALONE = "<alone>"
"""As the target of a task: the process for suspects of its partition."""


def to_renderer(name: str) -> str:
    """As the target of a task that has ended: the peer of that name, which is to make its row."""
    return f"<{name}>"


def is_to_renderer(target: str) -> bool:
    """Whether a target is one by `to_renderer`."""
    return target.startswith(f"<{PEER}-")


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One incarnation of one process. `roles` are those that its agents play."""

    kind: str
    index: int
    incarnation: int
    roles: tuple[str, ...] = ()

    @property
    def slot(self) -> tuple[str, int]:
        """The place it fills, whatever the incarnation."""
        return self.kind, self.index

    @property
    def name(self) -> str:
        """Its address, e.g. `peer-2.1`: never used again after this incarnation."""
        return f"{self.kind}-{self.index}.{self.incarnation}"


class View(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """The living members as of one moment, and how ids are dealt to feeders and shards."""

    number: int
    members: tuple[Member, ...]
    partitions: int = 1
    shards: int = 1

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all members."""
        return frozenset(member.name for member in self.members)

    def of(self, kind: str) -> list[Member]:
        """The members of one kind."""
        return [member for member in self.members if member.kind == kind]

    @cached_property
    def _hosts(self) -> dict[str, list[str]]:
        hosts: dict[str, list[str]] = {}
        for member in self.of(PEER):
            for role in member.roles:
                hosts.setdefault(role, []).append(member.name)
        return hosts

    @cached_property
    def _renderers(self) -> dict[str, str]:
        return {to_renderer(member.name): member.name for member in self.of(PEER)}

    @cached_property
    def _by_slot(self) -> dict[tuple[str, int], str]:
        return {member.slot: member.name for member in self.members}

    @property
    def slots(self) -> Set[tuple[str, int]]:
        """The places that are filled."""
        return self._by_slot.keys()

    def hosts(self, role: str) -> list[str]:
        """The names of the peers that host a role."""
        return self._hosts.get(role, [])

    def feeder(self, id: TaskId) -> str | None:
        """The feeder that admitted this id, or None while it has none."""
        return self._by_slot.get((FEEDER, partition_of(id, self.partitions)))

    def sink(self, id: TaskId) -> str | None:
        """The sink whose shard owns this id's row, or None while there is none."""
        return self._by_slot.get((SINK, hash_id(id) % self.shards))

    def route(self, target: str, id: TaskId) -> str | None:
        """Where a task goes next: a host of the role, always the same one; its sink; or who is named."""
        if target == TO_SINK:
            return self.sink(id)
        if target == TO_ALONE:
            return self._by_slot.get((ALONE, partition_of(id, self.partitions)))
        hosts = self._hosts.get(target)
        return hosts[hash_id(id) % len(hosts)] if hosts else self._renderers.get(target)


def hash_id(id: TaskId) -> int:
    """A number that deals ids evenly, independently of how rows are dealt to partitions."""
    mixed = (id.row * 0x9E3779B1 + id.file * 0x85EBCA6B + id.trial * 0xC2B2AE35) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) * 0x2C1B3C6D >> 7 & 0xFFFFFF
