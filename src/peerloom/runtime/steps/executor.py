"""Execute the steps of tasks: the agent of a role acts, then the workflow picks the next role.

Exceptions of agents and workflows are classified here, and nowhere else. A `TaskError` ends its task with
its own outcome and reason, any other exception with `failed`. Other tasks are not affected.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import CoroutineType
from typing import Any, TypeVar, cast

import msgspec

from peerloom.agents.base import Agent, Immediate, Services
from peerloom.agents.messages import call_ids
from peerloom.agents.toolcalls import with_ids
from peerloom.errors import LLMError, WorkflowError
from peerloom.runtime.steps.error_counts import ErrorCounts
from peerloom.runtime.steps.recorded_calls import RecordedCalls, digest_of, save
from peerloom.runtime.steps.time_limit import TurnTimer
from peerloom.runtime.steps.turns import appended, check_end, checked
from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.sink.totals import AgentTally
from peerloom.task import End, Header, SavedCall, Task, Turn, Usage
from peerloom.workflow import Workflow

_NO_USAGE = Usage()

Request = TypeVar("Request", ChatRequest, EmbedRequest)
Reply = TypeVar("Reply", ChatReply, EmbedReply)

OnCall = Callable[[Header, SavedCall], None]
"""Called with each answered call, and the header of its task."""


class RecordingLLM:
    """Passes on the calls of one agent during one step, and records them.

    It adds up the usage, answers calls recorded by an earlier attempt, and labels requests with their role
    and with the task as their session.
    """

    __slots__ = (
        "_call_ids",
        "_llm",
        "_on_call",
        "_saved",
        "_task",
        "finish_reason",
        "model",
        "timer",
        "usage",
    )

    def __init__(self, llm: LLM, task: Task, on_call: OnCall | None) -> None:
        self._llm = llm
        self._task = task
        self._saved = RecordedCalls(task.calls) if task.calls else None
        self._on_call = on_call
        self.usage = Usage()
        self.model = ""
        self.finish_reason = ""
        self.timer: TurnTimer | None = None
        self._call_ids: set[str] | None = None  # of all turns so far

    def chat(self, request: ChatRequest) -> "CoroutineType[Any, Any, ChatReply]":
        """Return the recorded reply to a chat request, or make the call."""
        return self._ask(self._llm.chat, request, ChatReply)

    def embed(self, request: EmbedRequest) -> "CoroutineType[Any, Any, EmbedReply]":
        """Return the recorded reply to an embedding request, or make the call."""
        return self._ask(self._llm.embed, request, EmbedReply)

    async def close(self) -> None:
        """Do nothing: the client belongs to the peer."""

    async def _ask(
        self, ask: Callable[[Request], Awaitable[Reply]], request: Request, kind: type[Reply]
    ) -> Reply:
        digest = digest_of(request) if self._saved is not None or self._on_call is not None else b""
        reply = self._saved.answer(digest, kind) if self._saved is not None else None
        if reply is None:
            self._task.forget_input()
            if self.timer is not None:
                self.timer.pause()
            try:
                reply = await ask(self._with_session(request))
            except LLMError as error:
                if isinstance(error.usage, Usage):
                    self.usage += error.usage
                raise
            finally:
                if self.timer is not None:
                    self.timer.resume()
            call = save(digest, reply)
            if call is not None and self._on_call is not None:
                self._on_call(self._task.header, call)
        self.usage += reply.usage
        self.model = reply.model
        if isinstance(reply, ChatReply):
            self.finish_reason = reply.finish_reason
            if reply.tool_calls:
                reply = self._with_ids(reply)
        return reply

    def _with_ids(self, reply: ChatReply) -> ChatReply:
        """Return the reply with unique ids of its tool calls."""
        if self._call_ids is None:
            self._call_ids = call_ids(self._task)
        calls = with_ids(reply.tool_calls, self._task.header.hop, self._call_ids)
        if calls == reply.tool_calls:
            return reply
        message = {**reply.message, "tool_calls": calls}
        return msgspec.structs.replace(reply, tool_calls=calls, message=message)

    def _with_session(self, request: Request) -> Request:
        if request.session and request.role:
            return request
        return msgspec.structs.replace(
            request, session=request.session or str(self._task.id), role=request.role or self._task.next_role
        )


class StepExecutor:
    """Executes the agents of one peer.

    Args:
        workflow: picks the next role of a task.
        agents: the agents by role.
        llm: the client of the peer.
        on_call: called with each paid call.
        ending: returns whether the peer is ending, and thus cancels its asyncio tasks.
        timeouts: the seconds that a turn of a role may take, not counting its calls.
    """

    def __init__(
        self,
        workflow: Workflow,
        agents: Mapping[str, Agent],
        llm: LLM,
        on_call: OnCall | None = None,
        ending: Callable[[], bool] = lambda: False,
        timeouts: Mapping[str, float] | None = None,
    ) -> None:
        self._workflow = workflow
        self._agents = agents
        self._llm = llm
        self._on_call = on_call
        self._ending = ending
        self._timeouts = timeouts or {}
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
                after = appended(task, _complete_last(result, role, None, started, seconds))
            elif isinstance(result, list):
                seconds = time.perf_counter() - clock
                turns = checked(result, self._agents[role])
                after = appended(task, *_complete(turns, role, None, started, seconds))
            else:
                return self._wait(task, result, started, clock)
        except BaseException as error:  # also SystemExit: an agent ends only its own task
            seconds = time.perf_counter() - clock
            after = self._failed(task, error, None, started, seconds)
        return self._end(task, after, None, seconds)

    def _ask(self, task: Task) -> "Task | Awaitable[Task]":
        llm = RecordingLLM(self._llm, task, self._on_call)
        role = task.next_role
        agent = self._agents[role]
        started, clock = time.time(), time.perf_counter()
        try:
            acting = agent.act(task, Services(llm))
            if type(acting) is not CoroutineType and not inspect.isawaitable(acting):
                raise TypeError(
                    f"{type(agent).__name__}.act returned a {type(acting).__name__} without being awaited; "
                    "define it with `async def`"
                )
        except BaseException as error:  # of an `act` that is no coroutine function
            seconds = time.perf_counter() - clock
            return self._end(task, self._failed(task, error, llm, started, seconds), llm, seconds)
        return self._wait(task, acting, started, clock, llm)

    async def _wait(
        self,
        task: Task,
        acting: Awaitable[Turn | list[Turn]],
        started: float,
        clock: float,
        llm: RecordingLLM | None = None,
    ) -> Task:
        role, current = task.next_role, asyncio.current_task()
        if current is not None and current.cancelling() and not self._ending():
            await _undo_cancelling(current)  # by an earlier agent in this task
        try:
            limit = self._timeouts.get(role)
            result = await (acting if limit is None else _with_time_limit(acting, role, limit, llm))
            seconds = time.perf_counter() - clock
            turns = checked(result, self._agents[role])
            after = appended(task, *_complete(turns, role, llm, started, seconds))
        except BaseException as error:
            if self._ends_task_here(error, current):
                raise
            seconds = time.perf_counter() - clock
            after = self._failed(task, error, llm, started, seconds)
        if current is not None and current.cancelling() and not self._ending():
            await _undo_cancelling(current)
        return self._end(task, after, llm, seconds)

    def _ends_task_here(self, error: BaseException, current: "asyncio.Task[Any] | None") -> bool:
        """Return whether an exception ends the work of the peer, instead of coming from the agent."""
        if issubclass(type(error), asyncio.CancelledError):
            return current is not None and current.cancelling() > 0 and self._ending()
        return issubclass(type(error), GeneratorExit) and _running_task() is not current

    def _end(self, task: Task, after: Task, llm: RecordingLLM | None, seconds: float) -> Task:
        self._count(task.next_role, llm.usage if llm is not None else _NO_USAGE, seconds)
        return routed(after, self._workflow, self.errors)

    def _failed(
        self, task: Task, error: BaseException, llm: RecordingLLM | None, started: float, seconds: float
    ) -> Task:
        role = task.next_role
        turn = Turn(role, end=self.errors.classify(error, "agent_error", task, role))
        try:
            return task.with_turns(*_complete([turn], role, llm, started, seconds))
        except OverflowError:  # of the usage, which is dropped to keep the reason of the failure
            return task.with_turns(*_complete([turn], role, None, started, seconds))

    def _count(self, role: str, usage: Usage, seconds: float) -> None:
        self.hops += 1
        tally = self.tallies.get(role)
        if tally is None:
            tally = self.tallies[role] = AgentTally()
        tally.turns += 1
        tally.seconds += seconds
        if usage is _NO_USAGE:
            return
        tally.calls += usage.calls
        tally.prompt += usage.prompt
        tally.completion += usage.completion
        tally.cached += usage.cached
        tally.usd += usage.usd


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


def _complete(
    turns: list[Turn], role: str, llm: RecordingLLM | None, started: float, seconds: float
) -> list[Turn]:
    """Return the turns with role, usage, and time; the last one gets all usage and time of the step."""
    earlier = [msgspec.structs.replace(turn, agent=role, started=started, seconds=0.0) for turn in turns[:-1]]
    return [*earlier, _complete_last(turns[-1], role, llm, started, seconds)]


def _complete_last(turn: Turn, role: str, llm: RecordingLLM | None, started: float, seconds: float) -> Turn:
    """Return the last turn completed. Dicts are copied: the agent may still change those it returned."""
    message, usage, model, finish = turn.message, turn.usage, turn.model, turn.finish_reason
    value: Any = turn.value
    if llm is not None:
        usage = llm.usage if llm.usage.calls else usage
        model = llm.model if model == "" else model
        finish = llm.finish_reason if finish == "" else finish
    if type(message) is dict:
        message = message.copy()
    if type(value) is dict:
        value = cast("dict[str, Any]", value).copy()
    return Turn(role, message, value, turn.end, usage, model, finish, started, seconds, turn.extras)


async def _with_time_limit(
    acting: Awaitable[Turn | list[Turn]], role: str, seconds: float, llm: RecordingLLM | None
) -> Turn | list[Turn]:
    """Await a turn for at most `seconds`, not counting its calls."""
    async with TurnTimer(role, seconds) as timer:
        if llm is not None:
            llm.timer = timer
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
