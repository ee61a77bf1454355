"""Hold leases of several services during one turn of a task, so that tasks never wait for each other.

A task acquires all its leases at once, or releases them before it acquires others. The sets of several
services are granted one after the other, in the order of the names of the services: so a task that waits
holds leases of earlier services only, and there is no cycle. If a set is lost while others are held, it is
first requested without waiting; if it is not free, the task releases those of later services, and acquires
them again in order.
"""

from collections.abc import Mapping, Sequence

from peerloom.protocol.leases.holder import Exchange, LeaseHolder, LeaseRefused
from peerloom.task import Header
from peerloom.turn import HeldSet, RecordedStep


class HeldLeases:
    """The leases that a task holds in one turn, of all services.

    Args:
        header: the identity of the copy.

    Attributes:
        holders: the holder of each service that has leases, by its name.
    """

    def __init__(self, header: Header) -> None:
        self.holders: dict[str, LeaseHolder] = {}
        self._header = header

    def add(
        self,
        service: str,
        held: HeldSet | None = None,
        steps: Sequence[RecordedStep] = (),
        calls: Sequence[RecordedStep] = (),
    ) -> LeaseHolder:
        """Add a service; see `LeaseHolder`."""
        holder = LeaseHolder(service, self._header, self._regain, held, steps, calls)
        self.holders[service] = holder
        return holder

    @property
    def is_empty(self) -> bool:
        """Whether the task holds no leases."""
        return all(holder.held is None for holder in self.holders.values())

    def acquire(self, specs: Mapping[str, Sequence[bytes]]) -> Exchange[None]:
        """Acquire a lease for each spec, by service; wait until all are free.

        Raises:
            LeaseRefused: if a service never has this number of leases; none is held then.
            RuntimeError: if the task holds leases already.
        """
        if not self.is_empty:
            raise RuntimeError("the task holds leases already: release them before acquiring others")
        for service, holder in self.holders.items():
            if service not in specs and holder.may_hold:
                yield from holder.give_up()
        wanted = [self.holders[service] for service in specs]
        for holder in wanted:
            holder.choose(specs[holder.service])
        complete = False
        try:
            yield from self._regain()
            complete = True
        except LeaseRefused:
            for holder in wanted:
                if holder.may_hold:
                    yield from holder.give_up()
            raise
        finally:
            if not complete:  # refused or cancelled: a set granted meanwhile is released by the next request
                for holder in wanted:
                    holder.held = None

    def release(self) -> Exchange[None]:
        """Release all leases of the task."""
        for holder in self.holders.values():
            if holder.held is not None:
                yield from holder.release()

    def _regain(self) -> Exchange[None]:
        """Acquire all sets that are not granted, without waiting for one while holding a later one."""
        wanted = sorted(
            (holder for holder in self.holders.values() if holder.held is not None),
            key=lambda holder: holder.service,
        )
        for number, holder in enumerate(wanted, 1):
            if holder.is_granted:
                continue
            later = [other for other in wanted[number:] if other.may_hold]
            if not (yield from holder.request_set(wait=not later)):
                for other in later:
                    yield from other.give_up()
                yield from holder.request_set()
