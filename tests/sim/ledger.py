"""What was paid for: every served call and every turn is entered here under a number of its own.

Nothing may be paid for twice: a call path, that is (id, hop, number of the call), is not served again once
a process in good standing that was served it has written its journal in a pass, and neither is a turn made
again. So what a death may cost is what was served since the last pass. A process is
in good standing until it dies or is fenced off: given up by its coordinator, or left over by a session
whose driver died. Excused, and counted, is

- what is paid for a task of which a process that was fenced off, and not dead yet, has been served or has
  written anything;
- what is paid again because a power loss took a record that had never been synced, or a record was
  damaged: what that record was about, what was paid in the same attempt upon it, and, if it is a BASE,
  the calls in it (they are still in the chain they came from, but only one chain is taken).

So without power loss, damage and suspicion of the living nothing at all is excused. A task's history must
be one chain, each turn made upon the very turns before it; so must its saved calls be.
"""

from typing import TYPE_CHECKING, NamedTuple

from disk import BASE, TURN, Record
from leases import Held

from peerloom.task import Header, TaskId
from peerloom.turn import RecordedStep

if TYPE_CHECKING:
    from processes import Process
    from world import World


STEP = 1_000_000
"""As the number of a call: a step on a lease."""

Path = tuple[TaskId, int, int]
"""Of a call: the task, its hop, and the call's number; of a turn, -1 in the place of the number."""


class Request(NamedTuple):
    """What is asked: `parent` is the last turn, `before` the call whose answer this one is about."""

    id: TaskId
    hop: int
    parent: int
    number: int
    before: int


class Made(NamedTuple):
    """A turn: made upon `parent`, out of these calls."""

    id: TaskId
    hop: int
    parent: int
    calls: tuple[int, ...]


class Ledger:
    """All calls and turns of a history."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.requests: list[Request] = [Request(TaskId(-1, -1, -1), -1, 0, 0, 0)]
        self.turns: list[Made] = [Made(TaskId(-1, -1, -1), -1, 0, ())]
        self.steps: dict[int, RecordedStep] = {}  # on leases, by token; they cost nothing
        self.held: dict[int, Held] = {}  # by turn
        self._secured: dict[Path, dict[int, int]] = {}  # tokens, and the attempt each was paid in
        self._unwritten: dict[str, list[tuple[Path, int, int]]] = {}
        self._excused: set[TaskId] = set()
        self._lost: set[Path] = set()  # what may be paid again, and is still counted
        self._broken: dict[tuple[TaskId, int], list[Record]] = {}  # lost records of attempts
        self.repaid = 0

    def serve(self, process: "Process", request: Request, attempt: int, used: list[int]) -> int:
        """A call is paid; `used` are those that its turn has already. The call's token."""
        self.requests.append(request)
        token = len(self.requests) - 1
        self._charge(process, (request.id, request.hop, request.number), attempt, token, used)
        return token

    def step(self, header: Header, parent: int, step: RecordedStep) -> int:
        """A step on a lease is recorded; its token."""
        self.requests.append(Request(header.id, header.hop, parent, STEP, 0))
        token = len(self.requests) - 1
        self.steps[token] = step
        return token

    def turn(self, process: "Process", made: Made, attempt: int) -> int:
        """A turn is made; its token."""
        if len(set(made.calls)) != abs(self._world.scenario.calls[made.id][made.hop]):
            self._world.violated(f"{made} has an answer twice, or none")
        self.turns.append(made)
        token = len(self.turns) - 1
        self._charge(process, (made.id, made.hop, -1), attempt, token, [])
        return token

    def passed(self, process: "Process") -> None:
        """A process has written down what it had paid for: if it is in good standing, that is for good."""
        for path, token, attempt in self._unwritten.pop(process.name, ()):
            broken = self._broken.get((path[0], attempt), ())
            if process.fenced:
                self._excused.add(path[0])
            elif any(self._rests_on(record, path, token) for record in broken):
                self._lost.add(path)
            else:
                self._secured.setdefault(path, {})[token] = attempt

    def lost(self, record: Record) -> None:
        """A record is nowhere any more, and that is excused."""
        self._broken.setdefault((record.id, record.attempt), []).append(record)
        for path, tokens in self._secured.items():
            for token, attempt in list(tokens.items()) if path[0] == record.id else ():
                inherited = path[2] >= 0 and token in record.calls
                if inherited or (attempt == record.attempt and self._rests_on(record, path, token)):
                    del tokens[token]
                    self._lost.add(path)

    def check_task(self, who: str, id: TaskId, turns: tuple[int, ...], saved: tuple[int, ...]) -> None:
        """The history of a task must be one chain, and the calls made upon it."""
        parent = 0
        for hop, token in enumerate(turns):
            made = self.turns[token]
            if (made.id, made.hop, made.parent) != (id, hop, parent):
                self._world.violated(f"{who}: the history of {id} is not one chain: {turns}")
            parent = token
        for token in saved:
            request = self.requests[token]
            if (request.id, request.hop, request.parent) != (id, len(turns), parent):
                self._world.violated(f"{who}: {id} after {turns} is given a call of another chain: {request}")
        if len(set(saved)) < len(saved):
            self._world.violated(f"{who}: {id} is given a call twice: {saved}")

    def _charge(self, process: "Process", path: Path, attempt: int, token: int, used: list[int]) -> None:
        id = path[0]
        if process.fenced:
            self._excused.add(id)
        before = self._secured.get(path)
        if before and not before.keys() <= set(used):
            if id not in self._excused:
                self._world.violated(f"{process.name} pays again for {path}")
            self.repaid += 1
        elif path in self._lost:
            self.repaid += 1
        self._unwritten.setdefault(process.name, []).append((path, token, attempt))

    def _rests_on(self, record: Record, path: Path, token: int) -> bool:
        """Whether what was paid in a record's attempt is not known without the record."""
        _, hop, number = path
        if record.kind == BASE:
            return True
        if record.kind == TURN:
            within = record.hop - len(record.turns) <= hop and number == -1
            return hop >= record.hop or within
        if hop != record.hop or number < 0:
            return False
        return token == record.token or number > self.requests[record.token].number
