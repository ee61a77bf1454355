"""One step of a task: the agent of its role acts, the workflow says who is next.

The one place where what agents and workflows raise is classified: a `TaskError` ends the task with its
own outcome and reason, anything else with `failed`; siblings never notice.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import CoroutineType
from typing import Any, NoReturn, TypeVar

import msgspec

from peerloom.agents.base import Agent, Immediate, Services
from peerloom.errors import LLMError, TaskError
from peerloom.runtime.saved_calls import SavedCalls, digest_of, save
from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.sink.totals import AgentTally
from peerloom.task import FAILED, End, Header, SavedCall, Task, Turn, Usage
from peerloom.workflow import Workflow

DETAIL_CHARACTERS = 2_000

_NO_USAGE = Usage()

Request = TypeVar("Request", ChatRequest, EmbedRequest)
Reply = TypeVar("Reply", ChatReply, EmbedReply)

OnCall = Callable[[Header, SavedCall], None]
"""Told of each call that was asked and answered, with the copy of the task it was for."""


class StepLLM:
    """The language model as one agent sees it during one step.

    Counts what the calls used, answers those that an earlier attempt has asked already, and says for whom
    they are: the task is the conversation.
    """

    __slots__ = ("_llm", "_on_call", "_saved", "_task", "finish_reason", "model", "usage")

    def __init__(self, llm: LLM, task: Task, on_call: OnCall | None) -> None:
        self._llm = llm
        self._task = task
        self._saved = SavedCalls(task.calls) if task.calls else None
        self._on_call = on_call
        self.usage = Usage()
        self.model = ""
        self.finish_reason = ""

    def chat(self, request: ChatRequest) -> "CoroutineType[Any, Any, ChatReply]":
        """Pass the call on, unless its reply is known."""
        return self._ask(self._llm.chat, request, ChatReply)

    def embed(self, request: EmbedRequest) -> "CoroutineType[Any, Any, EmbedReply]":
        """As `chat`."""
        return self._ask(self._llm.embed, request, EmbedReply)

    async def close(self) -> None:
        """Nothing: the client belongs to the peer."""

    async def _ask(
        self, ask: Callable[[Request], Awaitable[Reply]], request: Request, kind: type[Reply]
    ) -> Reply:
        digest = digest_of(request) if self._saved is not None or self._on_call is not None else b""
        reply = self._saved.answer(digest, kind) if self._saved is not None else None
        if reply is None:
            self._task.forget_input()
            try:
                reply = await ask(self._signed(request))
            except LLMError as error:
                if isinstance(error.usage, Usage):
                    self.usage += error.usage
                raise
            call = save(digest, reply)
            if call is not None and self._on_call is not None:
                self._on_call(self._task.header, call)
        self.usage += reply.usage
        self.model = reply.model
        if isinstance(reply, ChatReply):
            self.finish_reason = reply.finish_reason
        return reply

    def _signed(self, request: Request) -> Request:
        if request.session and request.role:
            return request
        return msgspec.structs.replace(
            request, session=request.session or str(self._task.id), role=request.role or self._task.next_role
        )


class Stage:
    """The agents of one peer.

    Args:
        workflow: decides who is next.
        agents: by role.
        llm: the peer's client.
        on_call: hears of the calls that were paid.
    """

    def __init__(
        self, workflow: Workflow, agents: Mapping[str, Agent], llm: LLM, on_call: OnCall | None = None
    ) -> None:
        self._workflow = workflow
        self._agents = agents
        self._llm = llm
        self._on_call = on_call
        self._prompt = {
            role: it.at_once for role, it in agents.items() if isinstance(it, Immediate) and _is_immediate(it)
        }
        self.hops = 0
        self.tallies: dict[str, AgentTally] = {}

    async def step(self, task: Task) -> Task:
        """The task one hop further, routed to its next role or ended."""
        begun = self.begin(task)
        return begun if isinstance(begun, Task) else await begun

    def begin(self, task: Task) -> "Task | Awaitable[Task]":
        """As `step`, in this very moment if the agent need not wait; otherwise what to await."""
        role = task.next_role
        at_once = self._prompt.get(role)
        if at_once is None:
            return self._ask(task)
        started, clock = time.time(), time.perf_counter()
        try:
            acted = at_once(task)
            if not isinstance(acted, Turn | list):
                return self._wait(task, acted, started, clock)
            after = task.with_turns(*_filled(acted, role, None, started, time.perf_counter() - clock))
        except (Exception, asyncio.CancelledError) as error:
            after = _failed(task, error, None, started, time.perf_counter() - clock)
        return self._end(task, after, None, time.perf_counter() - clock)

    def _ask(self, task: Task) -> "Task | Awaitable[Task]":
        counting = StepLLM(self._llm, task, self._on_call)
        started, clock = time.time(), time.perf_counter()
        try:
            acting = self._agents[task.next_role].act(task, Services(counting))
        except Exception as error:  # it is no coroutine function, and has not come to its first wait
            seconds = time.perf_counter() - clock
            return self._end(task, _failed(task, error, counting, started, seconds), counting, seconds)
        return self._wait(task, acting, started, clock, counting)

    async def _wait(
        self,
        task: Task,
        acting: Awaitable[Turn | list[Turn]],
        started: float,
        clock: float,
        counting: StepLLM | None = None,
    ) -> Task:
        try:
            acted = await acting
            seconds = time.perf_counter() - clock
            after = task.with_turns(*_filled(acted, task.next_role, counting, started, seconds))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _being_cancelled():
                raise
            seconds = time.perf_counter() - clock
            after = _failed(task, error, counting, started, seconds)
        return self._end(task, after, counting, seconds)

    def _end(self, task: Task, after: Task, counting: StepLLM | None, seconds: float) -> Task:
        self._count(task.next_role, counting.usage if counting is not None else _NO_USAGE, seconds)
        return routed(after, self._workflow)

    def _count(self, role: str, usage: Usage, seconds: float) -> None:
        self.hops += 1
        tally = self.tallies.get(role)
        if tally is None:
            tally = self.tallies[role] = AgentTally()
        tally.turns += 1
        tally.calls += usage.calls
        tally.prompt += usage.prompt
        tally.completion += usage.completion
        tally.cached += usage.cached
        tally.seconds += seconds
        tally.usd += usage.usd


def routed(task: Task, workflow: Workflow) -> Task:
    """The task, which must be new, sent to its next role, or ended: by its last turn, or by the workflow."""
    last = task.last
    if last is not None and last.end is not None:
        return task.go_to(last.end)
    try:
        return task.go_to(workflow.next(task))
    except Exception as error:
        return task.go_to(classify(error, "workflow_error"))


def _is_immediate(agent: Agent) -> bool:
    """Whether `at_once` stands for `act`: not in a subclass that has an `act` of its own only."""
    [owner, *_] = [
        kind for kind in type(agent).__mro__ if "act" in kind.__dict__ or "at_once" in kind.__dict__
    ]
    return "at_once" in owner.__dict__


def _failed(
    task: Task, error: BaseException, counting: StepLLM | None, started: float, seconds: float
) -> Task:
    turn = Turn(task.next_role, end=classify(error, "agent_error"))
    return task.with_turns(*_filled(turn, task.next_role, counting, started, seconds))


def _filled(
    acted: "Turn | Iterable[Turn]", role: str, counting: StepLLM | None, started: float, seconds: float
) -> list[Turn]:
    """The turns with what the runtime knows; usage and time go to the last one, so that sums are right."""
    *earlier, last = (acted,) if isinstance(acted, Turn) else acted or _none(role)
    filled = [msgspec.structs.replace(turn, agent=role, started=started) for turn in earlier]
    counted = counting is not None and counting.usage.calls
    final = Turn(
        role,
        last.message,
        last.value,
        last.end,
        counting.usage if counting is not None and counted else last.usage,
        last.model or (counting.model if counting is not None else ""),
        last.finish_reason or (counting.finish_reason if counting is not None else ""),
        started,
        seconds,
        last.extras,
    )
    return [*filled, final]


def _none(role: str) -> NoReturn:
    raise ValueError(f"agent {role!r} returned no turn")


def _being_cancelled() -> bool:
    """Whether it is this task that is to end, not something that an agent waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def classify(error: BaseException, reason: str) -> End:
    """How what was raised ends a task; `reason` is for errors that do not say themselves."""
    if isinstance(error, TaskError):
        return End(error.outcome, error.reason, detail=str(error)[:DETAIL_CHARACTERS])
    return End(FAILED, reason, detail=f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS])
