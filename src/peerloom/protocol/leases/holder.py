"""Hold leases during one turn of a task, and keep their states in line with the journal.

The methods are generators without I/O: they yield messages, and are sent the replies, or `None` if the
connection was lost, so that it is unknown whether the request was carried out. They return when the agent
may go on.

The steps recorded for a lease come from the turns of the task and the calls of its unfinished turn. A
recorded step is answered without a request. Before any other step the state must have exactly the recorded
history: if it does not, the set is acquired again, and the recorded steps are executed on the new state.
"""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeVar

from peerloom.protocol.leases.messages import (
    FAILED,
    FENCED,
    TOO_MANY,
    Acquire,
    Granted,
    Refused,
    Release,
    Reply,
    Request,
    Stamp,
    Step,
    StepReply,
    digest_of_specs,
    extend_history,
)
from peerloom.task import Header
from peerloom.turn import HeldSet, LeaseName, RecordedStep

T = TypeVar("T")


class Message(NamedTuple):
    """A request to the process of a service at `place`; if that is empty, to any of them."""

    service: str
    place: str
    request: Request


Exchange = Generator[Message, Reply | None, T]


class Fenced(BaseException):
    """A newer copy of the task exists, or the task has ended: this one must go no further."""


class LeaseRefused(Exception):
    """The service refused a request; the text has its reason."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(reason)
        self.service = service


class LeaseHolder:
    """The leases of one service that a task holds in one turn.

    Args:
        service: the name of the service.
        header: the identity of the copy.
        regain: acquires the set again, with those of other services (`HeldLeases`).
        held: the set that the last turn left with the task.
        steps: the steps of that set that earlier turns have recorded, oldest first.
        calls: the steps recorded in this turn, by an earlier attempt.

    Attributes:
        held: the set that the task holds.
        is_granted: whether the task has that set, as far as is known.
        made: the steps made in this turn, oldest first.
    """

    def __init__(
        self,
        service: str,
        header: Header,
        regain: "Callable[[], Exchange[None]]",
        held: HeldSet | None = None,
        steps: Sequence[RecordedStep] = (),
        calls: Sequence[RecordedStep] = (),
    ) -> None:
        self.service = service
        self.held: HeldSet | None = None
        self.is_granted = held is not None
        self.made: list[RecordedStep] = []
        self._header = header
        self._regain = regain
        self._calls = calls
        self._serial = 0
        self._acquired = 0
        self._requested = False
        self._lanes: list[_Lane] = []
        if held is not None:
            self._hold(held, steps)

    @property
    def may_hold(self) -> bool:
        """Whether the service may have granted a set to this task: one that it holds, or has requested."""
        return self.is_granted or self._requested

    def choose(self, specs: Sequence[bytes]) -> None:
        """Make a set with a lease for each spec the one that the task holds, before it is requested."""
        self._acquired += 1
        name = LeaseName(self._header.hop, self._acquired, digest_of_specs(self.service, specs))
        self.is_granted = False
        self._hold(HeldSet(name, list(specs)))

    def request_set(self, *, wait: bool = True) -> Exchange[bool]:
        """Request the set. Return False if it is not free and `wait` is false.

        Raises:
            LeaseRefused: if the service never has this number of leases.
        """
        assert self.held is not None
        name, specs, _ = self.held
        while True:
            self._serial += 1
            self._requested = True
            histories = [lane.expected for lane in self._lanes]
            reply = yield self._to(Acquire(self._header.id, self._stamp, name, specs, histories, wait))
            if isinstance(reply, Granted):
                self.is_granted = True
                self.held = self.held._replace(place=reply.place)
                for lane, history in zip(self._lanes, reply.histories, strict=True):
                    lane.at = history
                return True
            if reply is not None:
                self._requested = False
                self._check(reply)
                return False

    def step(self, slot: int, digest: bytes, request: bytes) -> Exchange[tuple[bytes, RecordedStep | None]]:
        """Execute a request on one lease. Return the reply, and the step to record unless it is recorded.

        Steps of one lease must not overlap.

        Raises:
            Fenced: if this copy of the task is obsolete.
            LeaseRefused: if the service could not execute the request, and nothing has changed.
        """
        assert self.held is not None
        lane = self._lanes[slot]
        recorded = lane.recorded.get((lane.history, digest))
        if recorded is not None:
            self._make(lane, recorded)
            return recorded.reply, None
        lane.recorded.clear()  # the rest would belong to another path of the agent
        number, before = len(lane.steps) + 1, lane.history
        while True:
            yield from self._restore(slot)
            reply = yield from self._execute(slot, number, digest, request)
            if reply is not None:
                step = RecordedStep(self.held.name, slot, number, before, digest, request, reply)
                self._make(lane, step)
                return reply, step

    def give_up(self) -> Exchange[None]:
        """Release the set for now; the steps rebuild its state when it is acquired again."""
        self._serial += 1
        reply = None
        while reply is None:
            reply = yield self._to(Release(self._header.id, self._stamp))
        self._check(reply)
        self.is_granted = self._requested = False

    def release(self) -> Exchange[None]:
        """Release the set, if the task holds one."""
        yield from self.give_up()
        self.held = None

    @property
    def _stamp(self) -> Stamp:
        return Stamp(self._header.attempt, self._header.hop, self._serial)

    def _check(self, reply: Reply) -> None:
        """Raise the exception of a refusal, unless the holder can go on after it."""
        if isinstance(reply, Refused):
            if reply.reason == FENCED:
                raise Fenced
            if reply.reason in (FAILED, TOO_MANY):
                raise LeaseRefused(self.service, reply.detail)

    def _to(self, request: Request) -> Message:
        return Message(self.service, self.held.place if self.held is not None else "", request)

    def _hold(self, held: HeldSet, earlier: Sequence[RecordedStep] = ()) -> None:
        self.held = held
        self._lanes = [_Lane() for _ in held.specs]
        for step in earlier:
            lane = self._lanes[step.slot]
            lane.add(step)
            lane.at = lane.history
        for step in self._calls:
            if step.name == held.name:
                self._lanes[step.slot].recorded[step.before, step.digest] = step

    def _make(self, lane: "_Lane", step: RecordedStep) -> None:
        lane.add(step)
        self.made.append(step)

    def _restore(self, slot: int) -> Exchange[None]:
        """Bring the state of a lease to its recorded history."""
        lane = self._lanes[slot]
        while True:
            while not self.is_granted or lane.at not in (b"", lane.history):
                self.is_granted = False
                yield from self._regain()
            start = 0 if lane.at == b"" else len(lane.steps)
            for step in lane.steps[start:]:
                if (yield from self._execute(slot, step.number, step.digest, step.request)) is None:
                    break
            else:
                return

    def _execute(self, slot: int, number: int, digest: bytes, request: bytes) -> Exchange[bytes | None]:
        """Execute a request. Return None if the set must be acquired again."""
        assert self.held is not None
        lane = self._lanes[slot]
        id, name = self._header.id, self.held.name
        message = Step(id, self._stamp, name, slot, number, lane.at, digest, request)
        reply = None
        while reply is None:
            reply = yield self._to(message)  # after a lost connection: repeated, and not executed twice
        if isinstance(reply, StepReply):
            lane.at = extend_history(lane.at, digest)
            return reply.reply
        self._check(reply)
        self.is_granted = False
        return None


class _Lane:
    """One lease of a set.

    `steps` are those that the agent has made, `recorded` those that it may make again, and `at` is the
    history of the state.
    """

    def __init__(self) -> None:
        self.steps: list[RecordedStep] = []
        self.history = b""
        self.recorded: dict[tuple[bytes, bytes], RecordedStep] = {}
        self.at = b""

    def add(self, step: RecordedStep) -> None:
        """Add a step that the agent has made."""
        self.steps.append(step)
        self.history = extend_history(self.history, step.digest)

    @property
    def expected(self) -> bytes:
        """The history after all recorded steps, which the agent will most likely make again."""
        following = {step.before: step for step in self.recorded.values()}
        history = self.history
        while (step := following.pop(history, None)) is not None:
            history = extend_history(history, step.digest)
        return history
