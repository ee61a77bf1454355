"""Peers in the world, and the agents at work in them."""

from functools import partial
from typing import TYPE_CHECKING

from copies import acted, ended, tokens
from disk import CALL, TURN, Record
from leases import Held, Ticket, follow, leases_of
from ledger import Ledger, Made, Request
from processes import Process, pack
from scenario import AGENT, EQUAL

from peerloom.protocol.leases.holder import Exchange, Fenced
from peerloom.protocol.leases.messages import Reply
from peerloom.protocol.messages import Item
from peerloom.protocol.peer import Move, Peer, to_renderer
from peerloom.protocol.view import ALONE, PEER, TO_SINK, Member
from peerloom.task import Header, Task, TaskId, decode, encode
from peerloom.turn import HeldSet, RecordedStep

if TYPE_CHECKING:
    from world import World


class Act:
    """An agent's act on a task: its turn's calls one after the other, or two equal ones at once."""

    __slots__ = (
        "answers",
        "asked",
        "before",
        "calls",
        "earlier",
        "leases",
        "number",
        "saved",
        "script",
        "task",
        "turns",
    )

    def __init__(
        self, task: Task, turns: tuple[int, ...], saved: tuple[int, ...], calls: int, ledger: Ledger
    ) -> None:
        self.task = task
        self.before = task.header
        self.turns = turns
        self.saved = [token for token in saved if token not in ledger.steps]
        self.calls = calls
        self.earlier = [ledger.held.get(token, Held()) for token in turns]
        steps = [ledger.steps[token] for token in saved if token in ledger.steps]
        self.leases = leases_of(task.header, self.earlier, steps)
        self.script: Exchange[None] | None = None
        self.number = 0  # of the request to the service that is under way
        self.asked = 0
        self.answers: list[int] = []

    @property
    def name(self) -> str:
        """For the trace."""
        return f"{self.before.id}@{self.before.attempt}.{self.before.hop}"

    @property
    def made(self) -> list[RecordedStep]:
        """The steps of this turn, of all services."""
        return [step for holder in self.leases.holders.values() for step in holder.made]

    def held(self) -> tuple[HeldSet | None, ...]:
        """The leases that the task holds, by service."""
        return tuple(holder.held for holder in self.leases.holders.values())

    def steps_of(self, service: int, slot: int) -> list[RecordedStep]:
        """The steps of a lease so far, as the task knows them."""
        held = self.held()[service]
        steps = [*(step for turn in self.earlier for step in turn.steps), *self.made]
        return [step for step in steps if held is not None and (step.name, step.slot) == (held.name, slot)]

    def request(self) -> Request:
        """What is asked next."""
        parent = self.turns[-1] if self.turns else 0
        if self.calls == EQUAL or not self.answers:
            return Request(self.before.id, self.before.hop, parent, 0, 0)
        return Request(self.before.id, self.before.hop, parent, len(self.answers), self.answers[-1])


class PeerProcess(Process):
    """A peer; agents take any time for their calls and turns."""

    def __init__(self, world: "World", member: Member) -> None:
        super().__init__(world, member)
        alone = member.kind == ALONE
        keep_to_end = alone and not world.scenario.journal
        self.core: Peer = Peer(member.name, alone=alone, keep_to_end=keep_to_end)
        self._waiting: list[Task] = []  # for room on the disk

    def begin(self, task: Task) -> None:
        """An agent is given a task."""
        world, header = self.world, task.header
        if self.writer is not None and self.writer.blocked:
            self._waiting.append(task)
            return
        turns, saved = tokens(task)
        if task.end is not None:
            self._make_row(header, turns)
            return
        if len(turns) != header.hop or world.scenario.tasks[header.id][header.hop] not in self.member.roles:
            world.violated(f"{self.name} got {header} with {turns}, which is not for it")
        world.ledger.check_task(self.name, header.id, turns, saved)
        act = Act(task, turns, saved, world.scenario.calls[header.id][header.hop], world.ledger)
        self._ask(act)

    def answered(self, act: Act) -> None:
        """A call has been served, and the answer is here."""
        request = act.request()
        token = self.world.ledger.serve(self, request, act.before.attempt, act.answers)
        if self.writer is not None:
            id, attempt, hop = act.before
            self.writer.add(Record(CALL, id, attempt, hop, token))
        act.answers.append(token)
        if len(act.answers) == act.asked == abs(act.calls) and self.world.random() < 0.5:
            self._use_service(act)
        else:
            self._ask(act)

    def agent_done(self, act: Act) -> None:
        """An agent has acted on a task, and so have those after it that act at once: one record for all."""
        world, core = self.world, self.core
        id, attempt, hop = before = act.before
        way = world.scenario.tasks[id]
        if world.poison.strikes(self, before) or not core.is_current(before):
            return
        task, turns, answers = act.task, list[int](), tuple(act.answers)
        parent = act.turns[-1] if act.turns else 0
        target = way[hop]
        while not turns or self._acts_at_once(id, hop, target):
            if turns and world.poison.strikes(self, before._replace(hop=hop)):
                return
            world.acts += 1
            if not core.held:
                world.advanced(core.view.number, id, hop)
            parent = world.ledger.turn(self, Made(id, hop, parent, answers), attempt)
            turns.append(parent)
            world.ledger.held[parent] = Held(act.held(), () if len(turns) > 1 else tuple(act.made))
            task, answers, hop = acted(task, parent), (), hop + 1
            target = way[hop] if hop < len(way) else TO_SINK
        if self.writer is not None:
            self.writer.add(Record(TURN, id, attempt, hop, turns=tuple(turns)))
        world.chained += len(turns) > 1
        self._send_on(before, task, target)

    def _acts_at_once(self, id: TaskId, hop: int, target: str) -> bool:
        """Whether the next agent is here too, and need not wait, nor is held up."""
        scenario = self.world.scenario
        if not self.core.stays(target) or scenario.calls[id][hop] or scenario.plans[id][hop]:
            return False
        return not (self.writer is not None and self.writer.blocked) and self.world.random() < 0.7

    def _send_on(self, before: Header, after: Task, target: str) -> None:
        """What has become of a copy goes where it has to."""
        core = self.core
        if core.move(before, after.header, target) is Move.HERE:
            self.begin(after)
        elif target is not TO_SINK:
            core.send(before, target, Item(after.header, encode(after)))
        elif not self._left_to_another(before, after):
            core.send(before, target, Item(after.header, pack(tokens(after)[0])))

    def _left_to_another(self, before: Header, after: Task) -> bool:
        """Now and then another peer makes the row of a task that has ended."""
        core, random = self.core, self.world.random
        others = [peer.name for peer in core.view.of(PEER) if peer.name != self.name]
        if not others or random() < 0.5:
            return False
        self.world.finished += 1
        target = to_renderer(others[int(random() * len(others))])
        core.send(before, target, Item(after.header, encode(ended(after))))
        return True

    def _make_row(self, header: Header, turns: tuple[int, ...]) -> None:
        """Make the row of a task that has ended elsewhere."""
        self.core.send(header, TO_SINK, Item(header, pack(turns)))

    def act_on_state(self) -> None:
        """Hand what has arrived to the agents, after what was done is written."""
        if self.write_journal():
            waiting, self._waiting = self._waiting, []
            for task in (*waiting, *(decode(item.payload) for item in self.core.arrivals())):
                self.begin(task)
            for feeder, passed in self.core.passed():
                self.world.send(self, self.world.processes[feeder], passed)
        super().act_on_state()

    def _ask(self, act: Act) -> None:
        """Let the next call be answered: by a saved one at once, or by the model; or end the act."""
        while act.asked < abs(act.calls):
            if act.calls != EQUAL and len(act.answers) < act.asked:
                return
            act.asked += 1
            saved = self._saved(act, act.request())
            if saved:
                act.saved.remove(saved)
                act.answers.append(saved)
            else:
                self.world.put(self, self.answered, act, AGENT)
        if len(act.answers) == abs(act.calls):
            self._use_service(act)

    def _use_service(self, act: Act) -> None:
        """Do what the turn does with the leases of its task."""
        plan = self.world.scenario.plans[act.before.id][act.before.hop]
        if act.script is None:
            act.script = follow(plan, act, self.world, partial(self._record, act))
            self._go_on(act, None)

    def replied(self, letter: tuple[Ticket, Reply | None]) -> None:
        """The service has answered a request, or the connection to it is lost."""
        (_, act, number), reply = letter
        if number == act.number:
            self._go_on(act, reply)

    def _go_on(self, act: Act, reply: Reply | None) -> None:
        assert act.script is not None
        act.number += 1
        try:
            message = act.script.send(reply)
        except StopIteration:
            self.world.put(self, self.agent_done, act, AGENT)
        except Fenced:
            pass  # this copy is obsolete
        else:
            self.world.supplies.send(Ticket(self, act, act.number), message)

    def _record(self, act: Act, step: RecordedStep) -> None:
        """Write a step down."""
        token = self.world.ledger.step(act.before, act.turns[-1] if act.turns else 0, step)
        if self.writer is not None:
            id, attempt, hop = act.before
            self.writer.add(Record(CALL, id, attempt, hop, token))

    def _saved(self, act: Act, request: Request) -> int:
        """A saved call that answers this request, or 0."""
        return next((token for token in act.saved if self.world.ledger.requests[token] == request), 0)
