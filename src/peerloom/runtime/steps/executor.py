"""Execute the steps of tasks: the agent of a role acts, then the workflow picks the next role.

Exceptions of agents and workflows are classified here, and nowhere else. A `TaskError` ends its task with
its own outcome and reason, any other exception with `failed`. Other tasks are not affected.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any, cast

import msgspec

from peerloom.agents.base import Agent, Immediate, Services
from peerloom.errors import WorkflowError
from peerloom.protocol.leases.holder import Fenced
from peerloom.runtime.steps.error_counts import ErrorCounts
from peerloom.runtime.steps.leases import keep_leases
from peerloom.runtime.steps.time_limit import TurnTimer
from peerloom.runtime.steps.turn_calls import NO_SERVICES, OnCall, TurnCalls
from peerloom.runtime.steps.turns import appended, check_end, checked
from peerloom.services.base import ConnectedService
from peerloom.services.llm.base import LLM
from peerloom.sink.totals import AgentTally
from peerloom.task import End, Execution, ModelCall, Task, Turn, TurnLeases, Usage
from peerloom.workflow import Workflow

_NO_USAGE = Usage()
_NO_LEASES: tuple[TurnLeases, ...] = ()
_NO_CALLS: tuple[ModelCall, ...] = ()


@dataclass(frozen=True)
class StepSettings:
    """The settings of steps.

    Attributes:
        timeouts: the seconds that a turn of a role may take, not counting its calls.
        record_requests: whether turns have the calls that they made of models.
    """

    timeouts: Mapping[str, float] = field(default_factory=dict[str, float])
    record_requests: bool = False


class StepExecutor:
    """Executes the agents of one peer.

    `services` are those besides the language model. `ending` returns whether the peer is ending, and thus
    cancels its asyncio tasks. `member` is the name of the peer.
    """

    def __init__(
        self,
        workflow: Workflow,
        agents: Mapping[str, Agent],
        llm: LLM,
        on_call: OnCall | None = None,
        ending: Callable[[], bool] = lambda: False,
        settings: StepSettings | None = None,
        services: Mapping[str, ConnectedService] = NO_SERVICES,
        member: str = "",
    ) -> None:
        self._workflow = workflow
        self._agents = agents
        self._llm = llm
        self._on_call = on_call
        self._ending = ending
        settings = settings or StepSettings()
        self._timeouts, self._record = settings.timeouts, settings.record_requests
        self._services = services
        self._leases = any(service.policy == "stateful" for service in services.values())
        self._member = member
        self._without_calls = Execution(member)
        self._sync_agents = {
            role: it.at_once for role, it in agents.items() if isinstance(it, Immediate) and _is_immediate(it)
        }
        self.hops = 0
        self.tallies: dict[str, AgentTally] = {}
        self.errors = ErrorCounts()

    @classmethod
    def code(cls) -> frozenset[object]:
        """Return the code objects that call agents, to find an agent on the stack."""
        return frozenset({cls.begin.__code__, cls._ask.__code__, cls._wait.__code__})

    async def step(self, task: Task) -> Task:
        """Return the task one hop further, sent to its next role or ended."""
        begun = self.begin(task)
        return begun if isinstance(begun, Task) else await begun

    def begin(self, task: Task) -> "Task | Awaitable[Task]":
        """Execute a step. Return its result if the agent is synchronous, else an awaitable of it."""
        role = task.next_role
        task.know_roles(self._workflow.roles)
        at_once = self._sync_agents.get(role)
        if at_once is None:
            return self._ask(task)
        started, clock = time.time(), time.perf_counter()
        try:
            result = at_once(task)
            if isinstance(result, Turn):
                seconds = time.perf_counter() - clock
                after = appended(task, self._complete_last(result, task, None, started, seconds))
            elif isinstance(result, list):
                seconds = time.perf_counter() - clock
                turns = checked(result, self._agents[role])
                after = appended(task, *self._complete(turns, task, None, started, seconds))
            else:
                return self._wait(task, result, started, clock)
        except BaseException as error:  # also SystemExit: an agent ends only its own task
            seconds = time.perf_counter() - clock
            after = self._failed(task, error, None, started, seconds)
        return self._end(task, after, None, seconds)

    def _ask(self, task: Task) -> "Task | Awaitable[Task]":
        calls = TurnCalls(self._llm, task, self._on_call, self._services, record=self._record)
        role = task.next_role
        agent = self._agents[role]
        started, clock = time.time(), time.perf_counter()
        try:
            acting = agent.act(task, Services(calls, calls))
            if type(acting) is not CoroutineType and not inspect.isawaitable(acting):
                raise TypeError(
                    f"{type(agent).__name__}.act returned a {type(acting).__name__} without being awaited; "
                    "define it with `async def`"
                )
        except BaseException as error:  # of an `act` that is no coroutine function
            seconds = time.perf_counter() - clock
            return self._end(task, self._failed(task, error, calls, started, seconds), calls, seconds)
        return self._wait(task, acting, started, clock, calls)

    async def _wait(
        self,
        task: Task,
        acting: Awaitable[Turn | list[Turn]],
        started: float,
        clock: float,
        calls: TurnCalls | None = None,
    ) -> Task:
        role, current = task.next_role, asyncio.current_task()
        if current is not None and current.cancelling() and not self._ending():
            await _undo_cancelling(current)  # by an earlier agent in this task
        try:
            limit = self._timeouts.get(role)
            result = await (acting if limit is None else _with_time_limit(acting, role, limit, calls))
            seconds = time.perf_counter() - clock
            turns = checked(result, self._agents[role])
            after = appended(task, *self._complete(turns, task, calls, started, seconds))
        except BaseException as error:
            if self._ends_task_here(error, current):
                raise
            _check_fenced(calls)  # within a group, perhaps
            seconds = time.perf_counter() - clock
            after = self._failed(task, error, calls, started, seconds)
        if current is not None and current.cancelling() and not self._ending():
            await _undo_cancelling(current)
        _check_fenced(calls)  # the agent may have caught it
        return self._end(task, after, calls, seconds)

    def _ends_task_here(self, error: BaseException, current: "asyncio.Task[Any] | None") -> bool:
        """Return whether an exception ends the work on this copy, instead of coming from the agent."""
        if issubclass(type(error), Fenced):
            return True
        if issubclass(type(error), asyncio.CancelledError):
            return current is not None and current.cancelling() > 0 and self._ending()
        return issubclass(type(error), GeneratorExit) and _running_task() is not current

    def _end(self, task: Task, after: Task, calls: TurnCalls | None, seconds: float) -> Task:
        self._count(task.next_role, calls.usage if calls is not None else _NO_USAGE, seconds)
        return routed(after, self._workflow, self.errors)

    def _failed(
        self, task: Task, error: BaseException, calls: TurnCalls | None, started: float, seconds: float
    ) -> Task:
        role = task.next_role
        turn = Turn(role, end=self.errors.classify(error, "agent_error", task, role))
        try:
            return task.with_turns(*self._complete([turn], task, calls, started, seconds))
        except OverflowError:  # of the usage, which is dropped to keep the reason of the failure
            return task.with_turns(*self._complete([turn], task, None, started, seconds))

    def _complete(
        self, turns: list[Turn], task: Task, calls: TurnCalls | None, started: float, seconds: float
    ) -> list[Turn]:
        """Return the turns with role, usage, and time; the last one gets all usage and time of the step."""
        role, replace = task.next_role, msgspec.structs.replace
        earlier = [replace(turn, agent=role, started=started, seconds=0.0) for turn in turns[:-1]]
        last = self._complete_last(turns[-1], task, calls, started, seconds)
        if earlier:
            task.take_kept()  # it does not have these turns
        return [*earlier, last]

    def _complete_last(
        self, turn: Turn, task: Task, calls: TurnCalls | None, started: float, seconds: float
    ) -> Turn:
        """Return the last turn completed. Dicts are copied: the agent may still change those it returned."""
        message, usage, model, finish = turn.message, turn.usage, turn.model, turn.finish_reason
        execution, leases, made = self._without_calls, _NO_LEASES, _NO_CALLS
        value: Any = turn.value
        if calls is not None:
            usage = calls.usage if calls.usage.calls else usage
            model = calls.model if model == "" else model
            finish = calls.finish_reason if finish == "" else finish
            execution = calls.execution(self._member)
            made = calls.model_calls(message)
        if self._leases:
            leases = calls.leases() if calls is not None else keep_leases(task, None)
        if type(message) is dict:
            message = message.copy()
        if type(value) is dict:
            value = cast("dict[str, Any]", value).copy()
        context: Any = turn.context
        if type(context) is list:
            context = tuple(cast("list[Any]", context))
        role, end, extras, only = task.next_role, turn.end, turn.extras, turn.context_only
        return Turn(  # positional arguments, which are faster: this is once for each hop
            role, message, value, end, usage, model, finish, started, seconds,
            extras, execution, leases, context, only, made,
        )  # fmt: skip

    def _count(self, role: str, usage: Usage, seconds: float) -> None:
        self.hops += 1
        tally = self.tallies.get(role)
        if tally is None:
            tally = self.tallies[role] = AgentTally()
        tally.count(usage, seconds)


def routed(task: Task, workflow: Workflow, errors: ErrorCounts) -> Task:
    """Send a task to its next role, or end it as its last turn or the workflow says; in place."""
    last = task.last
    if last is not None and last.end is not None:
        return task.go_to(last.end)
    try:
        target: Any = workflow.next(task)
        if isinstance(target, str) and target in workflow.roles:
            return task.go_to(target)
        if not isinstance(target, End):
            raise _no_such_role(target, workflow)
        check_end(target, "result")
        return task.go_to(target)
    except BaseException as error:
        return task.go_to(errors.classify(error, "workflow_error", task))


def _check_fenced(calls: TurnCalls | None) -> None:
    if calls is not None and calls.fenced:
        raise Fenced


def _no_such_role(target: object, workflow: Workflow) -> WorkflowError:
    named = repr(target) if type(target) is str else f"a {type(target).__name__}"
    return WorkflowError(
        f"next() returned {named}; it must return an End, or a role of the workflow: "
        + ", ".join(workflow.roles)
    )


def _is_immediate(agent: Agent) -> bool:
    """Return whether `at_once` may replace `act`: not in a subclass that overrides only `act`."""
    [owner, *_] = [
        kind for kind in type(agent).__mro__ if "act" in kind.__dict__ or "at_once" in kind.__dict__
    ]
    return "at_once" in owner.__dict__


async def _with_time_limit(
    acting: Awaitable[Turn | list[Turn]], role: str, seconds: float, calls: TurnCalls | None
) -> Turn | list[Turn]:
    """Await a turn for at most `seconds`, not counting its calls."""
    async with TurnTimer(role, seconds) as timer:
        if calls is not None:
            calls.timer = timer
        return await timer.bound(acting)


async def _undo_cancelling(current: "asyncio.Task[Any]") -> None:
    """Undo cancellations of the asyncio task that were requested by an agent."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while current.cancelling():
        current.uncancel()


def _running_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
