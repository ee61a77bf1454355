"""Describe the membership of a run as numbered views, and route tasks within a view.

A view lists the living members; view numbers only grow. A lost process never returns under its old name:
its replacement is a new incarnation, and messages of a fenced process carry an older view number.
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
"""A quarantine peer: hosts all roles, and receives only the suspects of one partition."""

TO_SINK = "<sink>"
"""The target of a task whose row goes to the sink of its shard."""

TO_ALONE = "<alone>"
"""The target of a suspect: the quarantine peer of its partition."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One incarnation of a member. `roles` are the workflow roles that it hosts."""

    kind: str
    index: int
    incarnation: int
    roles: tuple[str, ...] = ()

    @property
    def slot(self) -> tuple[str, int]:
        """The kind and index, which all incarnations share."""
        return self.kind, self.index

    @property
    def name(self) -> str:
        """The unique name of this incarnation, e.g. `peer-2.1`."""
        return f"{self.kind}-{self.index}.{self.incarnation}"


class View(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """The living members at one moment, and the assignment of ids to feeders and shards."""

    number: int
    members: tuple[Member, ...]
    partitions: int = 1
    shards: int = 1

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all members."""
        return frozenset(member.name for member in self.members)

    def of(self, kind: str) -> list[Member]:
        """Return the members of one kind."""
        return [member for member in self.members if member.kind == kind]

    @cached_property
    def _hosts(self) -> dict[str, list[str]]:
        hosts: dict[str, list[str]] = {}
        for member in self.of(PEER):
            for role in member.roles:
                hosts.setdefault(role, []).append(member.name)
        return hosts

    @cached_property
    def _by_slot(self) -> dict[tuple[str, int], str]:
        return {member.slot: member.name for member in self.members}

    @property
    def slots(self) -> Set[tuple[str, int]]:
        """The slots of all members."""
        return self._by_slot.keys()

    def hosts(self, role: str) -> list[str]:
        """Return the names of the peers that host a role."""
        return self._hosts.get(role, [])

    def feeder(self, id: TaskId) -> str | None:
        """Return the feeder of an id, or None while it is missing."""
        return self._by_slot.get((FEEDER, partition_of(id, self.partitions)))

    def sink(self, id: TaskId) -> str | None:
        """Return the sink whose shard owns an id, or None while it is missing."""
        return self._by_slot.get((SINK, hash_id(id) % self.shards))

    def route(self, target: str, id: TaskId) -> str | None:
        """Return the member for a target, or None while it is missing.

        For a role this is one of its hosts, always the same one within a view.
        """
        if target == TO_SINK:
            return self.sink(id)
        if target == TO_ALONE:
            return self._by_slot.get((ALONE, partition_of(id, self.partitions)))
        hosts = self._hosts.get(target)
        return hosts[hash_id(id) % len(hosts)] if hosts else None


def hash_id(id: TaskId) -> int:
    """Hash an id evenly, independently of the assignment of rows to partitions."""
    mixed = (id.row * 0x9E3779B1 + id.file * 0x85EBCA6B + id.trial * 0xC2B2AE35) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) * 0x2C1B3C6D >> 7 & 0xFFFFFF
