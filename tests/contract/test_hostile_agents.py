"""Agents that misbehave: each ends its own row, with the reason, and no other row is touched."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import End, FunctionAgent, LLMAgent, Sequence, Task, Turn, Usage
from peerloom.agents.base import Services
from peerloom.errors import EngineError, TaskError
from peerloom.services.llm.base import ChatReply, ChatRequest


class NoText(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class UnknownOutcome(TaskError):
    outcome = "weird"
    reason = "x"


def throw(error: BaseException) -> Any:
    raise error


async def cancel_itself() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.Event().wait()


def recursive() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def unfriendly() -> Exception:
    """An exception that exits when asked for its class; made here, since Ray cannot pickle such classes."""

    class Unfriendly(Exception):
        __class__ = property(lambda self: sys.exit(0))  # type: ignore[assignment]

    return Unfriendly("no class")


WRONG: Any = 5
OUTCOMES: Any = []


@dataclass
class NoUsage:
    """What has the fields of a usage, but is encoded as an object."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    calls: int = 0
    usd: float = 0.0


class Key(str):
    """A key that is equal to no other."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Real(float):
    """As numpy's: a float that is encoded by nobody."""


# By name: what the agent does, and how the row's detail goes on after the role.
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "exit": (lambda: sys.exit(3), "SystemExit: 3 (test_hostile_agents.py:"),
    "interrupt": (lambda: throw(KeyboardInterrupt()), "KeyboardInterrupt (test_hostile_agents.py:"),
    "generator_exit": (lambda: throw(GeneratorExit()), "GeneratorExit (test_hostile_agents.py:"),
    "base": (lambda: throw(BaseException("b")), "BaseException: b (test_hostile_agents.py:"),
    "group": (
        lambda: throw(BaseExceptionGroup("g", [KeyboardInterrupt()])),
        "BaseExceptionGroup: g (1 sub-exception) (test_hostile_agents.py:",
    ),
    "cancel_itself": (cancel_itself, "CancelledError (test_hostile_agents.py:"),
    "no_text": (lambda: throw(NoText()), "NoText: (its message could not be read)"),
    "surrogate": (lambda: throw(ValueError("caf\udce9")), "ValueError: caf\\udce9 (test_hostile"),
    "outcome": (lambda: throw(UnknownOutcome("x")), "UnknownOutcome: x: a TaskError needs an outcome of"),
    "end_outcome": (lambda: Turn("", end=End("weird", "x")), "ValueError: end.outcome: 'weird'; it must"),
    "end_reason": (lambda: Turn("", end=End("failed", "a\nb")), "ValueError: end.reason: 'a\\nb'; it must"),
    "message": (lambda: Turn("", message=WRONG), "TypeError: message: a int; it must be a dict or None"),
    "usage": (lambda: Turn("", usage=Usage(-1)), "ValueError: usage.prompt: -1; it must be a whole"),
    "huge": (lambda: Turn("", usage=Usage(1 << 63)), "ValueError: usage.prompt: 9223372036854775808;"),
    "usage_type": (lambda: Turn("", usage=NoUsage(1, 2)), "TypeError: usage: a NoUsage; it must be a Usage"),
    "dollars": (lambda: Turn("", usage=Usage(usd=10**400)), "ValueError: usage.usd: 1000"),
    "sum": (lambda: Turn("", usage=Usage(usd=1.7e308)), "ValueError: usage.usd: 1.7e+308; it must be a num"),
    "end_type": (lambda: Turn("", end=End(OUTCOMES)), "ValueError: end.outcome: a list; it must be one of"),
    "end_falsy": (lambda: Turn("", end=End(reason=WRONG - 5)), "ValueError: end.reason: 0; it must be"),
    "end_error": (lambda: Turn("", end=End(error="boo")), "ValueError: end.error: 'boo'; it must be None"),
    "early_end": (
        lambda: [Turn("", end=End("filtered", "why")), Turn("")],
        "ValueError: Hostile.act returned a list whose turn [0] has an end; only the last one may",
    ),
    "lost_key": (lambda: Turn("", value={"a": 1, Key("a"): 2}), "ValueError: value: "),
    "subclass": (lambda: Turn("", value={"x": [Real(1)]}), "ValueError: value.x[0]: of type Real, not JSON"),
    "stop": (lambda: throw(StopIteration()), "RuntimeError: coroutine raised StopIteration (test_hostile"),
    "text": (lambda: "x", "TypeError: Hostile.act returned a str; return a Turn or a list of them"),
    "nothing": (lambda: [], "ValueError: Hostile.act returned no turn; return at least one"),
    "nan": (lambda: Turn("", value=float("nan")), "ValueError: value: nan is not JSON"),
    "infinite": (lambda: Turn("", value={"a": [float("inf")]}), "ValueError: value.a[0]: inf is not JSON"),
    "set": (lambda: Turn("", value={1}), "ValueError: value: of type set, not JSON"),
    "bytes": (lambda: Turn("", value=b"\xff"), "ValueError: value: of type bytes, not JSON"),
    "key": (lambda: Turn("", value={1: 2}), "ValueError: value: a key of type int; use only strings"),
    "integer": (lambda: Turn("", value=1 << 64), "ValueError: value: an integer of more than 64 bits"),
    "value_surrogate": (lambda: Turn("", value="\udce9"), "ValueError: value: '\\udce9' holds a lone"),
    "recursive": (lambda: Turn("", value=recursive()), "ValueError: value[0][0]"),
    "deep": (lambda: Turn("", value=nested(101)), "ValueError: value[0][0]"),
    "result": (lambda: Turn("", end=End(result={1})), "ValueError: end.result: of type set, not JSON"),
    "class": (lambda: throw(unfriendly()), "Unfriendly: no class"),
}


class Hostile:
    async def act(self, task: Task, services: Services) -> Any:
        name = task.input["case"]
        if name not in CASES:
            return Turn("", value={"kept": [1, 2.5, None, nested(90), (1 << 64) - 1, (1, 2)]})
        acted = CASES[name][0]()
        return await acted if asyncio.iscoroutine(acted) else acted


def test_each_ends_its_own_row_only(engine: str, tmp_path: Path) -> None:
    rows = [{"case": name} for case in CASES for name in (case, f"good beside {case}")]
    result = peerloom.run(
        workflow=Sequence("hostile", "next"),
        agents={"hostile": Hostile(), "next": FunctionAgent(lambda task: task.value("hostile"))},
        source=rows,
        llm="simulated",
        engine=engine,
        run_dir=tmp_path / "run",
        progress=False,
    )
    ended = {row["input"]["case"]: row for row in result.rows(rejected=True)}
    assert len(ended) == len(rows)
    for name, (_, detail) in CASES.items():
        row = ended[name]
        assert (row["outcome"], row["reason"]) == ("failed", "agent_error"), name
        assert row["detail"].startswith(f"hostile: {detail}"), row["detail"]
        assert row["error"]["role"] == "hostile"
        good = ended[f"good beside {name}"]
        assert good["outcome"] == "completed"
        assert good["result"] == {"kept": [1, 2.5, None, nested(90), (1 << 64) - 1, [1, 2]]}


async def exit_in_the_background(task: Task) -> int:
    async def leave() -> None:
        sys.exit(0)

    if task.input["n"] == 1:
        going = asyncio.create_task(leave())
        await asyncio.sleep(0)
        await asyncio.wait((going,))
    return task.input["n"]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_an_exit_in_the_background_is_no_success(
    engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run() -> peerloom.RunResult:
        return peerloom.run(
            workflow=Sequence("a"),
            agents={"a": FunctionAgent(exit_in_the_background)},
            source=[{"n": number} for number in range(3)],
            llm="simulated",
            engine=engine,
            run_dir=tmp_path / "run",
            progress=False,
        )

    if engine == "local":
        with pytest.raises(EngineError, match=r"called sys.exit\(0\) outside of an agent's turn"):
            run()
    else:
        ended = {row["input"]["n"]: row["reason"] for row in run().rows(rejected=True)}
        assert ended == {0: "", 1: "poison", 2: ""}
    capfd.readouterr()  # what asyncio and Ray say of it


class NotAsync:
    def act(self, task: Task, services: Services) -> Any:
        return Turn("", value=1)


@pytest.mark.parametrize(
    ("value", "detail"),
    [({1}, "result: of type set, not JSON"), (float("nan"), "result: nan is not JSON")],
)
def test_a_result_that_cannot_be_kept_names_itself(value: Any, detail: str, tmp_path: Path) -> None:
    row = only_row(FunctionAgent(lambda task: 1), Sequence("a", result=lambda task: value), tmp_path)
    assert (row["outcome"], row["reason"]) == ("failed", "workflow_error")
    assert row["detail"].startswith(f"ValueError: {detail}")


class Ends:
    """A workflow that ends as it is told, with the value of the only turn."""

    roles = ("a",)

    def __init__(self, end: Callable[[Any], Any]) -> None:
        self._end = end

    def next(self, task: Task) -> Any:
        return self._end(task.last.value) if task.last is not None else "a"


@pytest.mark.parametrize(
    ("end", "detail"),
    [
        (lambda value: End(OUTCOMES, result=value), "end.outcome: a list; it must be one of completed"),
        (lambda value: End("bogus", result=value), "end.outcome: 'bogus'; it must be one of completed"),
        (lambda value: End("\ud800", result=value), "end.outcome: '\\ud800'; it must be one of"),
        (lambda value: End(reason=OUTCOMES, result=value), "end.reason: a list; it must be one line"),
        (lambda value: End(detail=WRONG, result=value), "end.detail: 5; it must be a string"),
        (lambda value: End(error="boo", result=value), "end.error: 'boo'; it must be None"),
        (lambda value: value.update(v=float("nan")) or End(result=value), "result.v: nan is not JSON"),
    ],
)
def test_an_end_of_a_workflow_is_checked(end: Callable[[Any], Any], detail: str, tmp_path: Path) -> None:
    row = only_row(FunctionAgent(lambda task: {"v": 1}), Ends(end), tmp_path)
    assert (row["outcome"], row["reason"]) == ("failed", "workflow_error")
    assert row["detail"].startswith(f"ValueError: {detail}")
    assert row["turns"][0]["value"] == {"v": 1}


def test_turns_are_kept_as_they_were_made(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"v": [1], "flat": 1}
    flat: dict[str, Any] = {"role": "assistant", "content": "said"}

    def tamper(value: Any) -> End:
        kept["flat"] = flat["content"] = value["flat"] = "changed"
        value["v"].append(float("nan"))
        return End(result="fine")

    def act(task: Task) -> Turn:
        return Turn("", message=flat, value=kept)

    class Tampering(Ends):
        def next(self, task: Task) -> Any:
            if task.turns:
                task.turns[0].message["content"] = "changed"
            return super().next(task)

    row = only_row(FunctionAgent(act), Tampering(tamper), tmp_path)
    assert (row["outcome"], row["result"]) == ("completed", "fine")
    assert row["turns"][0]["value"] == {"v": [1], "flat": 1}
    assert row["turns"][0]["message"]["content"] == row["messages"][0]["content"] == "said"


def test_an_agent_that_is_not_async_is_told_so(tmp_path: Path) -> None:
    row = only_row(NotAsync(), Sequence("a"), tmp_path)
    assert row["reason"] == "agent_error"
    assert "define it with `async def`" in row["detail"]


def only_row(agent: Any, workflow: Any, tmp_path: Path) -> dict[str, Any]:
    result = peerloom.run(
        workflow=workflow,
        agents={"a": agent},
        source=[{"n": 1}],
        llm="simulated",
        engine="local",
        run_dir=tmp_path / "run",
        progress=False,
    )
    [row] = result.rows(rejected=True)
    return row


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (
            lambda task: task.value("citric"),
            "there is no role 'citric'; did you mean 'critic'? The roles are:",
        ),
        (lambda task: task.by("zzz"), "there is no role 'zzz'; The roles are: writer, critic"),
        (lambda task: task.value("critic", "none yet"), ""),
    ],
)
def test_a_role_that_there_is_not_is_an_error(
    ask: Callable[[Task], Any], problem: str, engine: str, tmp_path: Path
) -> None:
    agents = {"writer": FunctionAgent(ask), "critic": FunctionAgent(lambda task: None)}
    done = peerloom.run(
        workflow=Sequence("writer", "critic"),
        agents=agents,
        source=[{"n": 1}],
        llm="simulated",
        engine="local" if engine == "local" else "ray",
        run_dir=tmp_path / "run",
        progress=False,
    )
    (row,) = done.rows(rejected=True)
    assert row["outcome"] == ("failed" if problem else "completed")
    assert problem in row.get("detail", "")


def test_a_template_that_names_no_role_fails_its_row(tmp_path: Path) -> None:
    done = peerloom.run(
        workflow=Sequence("critic"),
        agents={"critic": LLMAgent("{{ task.value('citric') }}")},
        source=[{"n": 1}],
        llm=["never asked"],
        engine="local",
        run_dir=tmp_path / "run",
        progress=False,
    )
    (row,) = done.rows(rejected=True)
    assert (row["outcome"], row["reason"]) == ("failed", "prompt")
    assert "did you mean 'critic'?" in row["detail"]


class Asks:
    """Asks the model itself, and returns what it said."""

    async def act(self, task: Task, services: Services) -> Turn:
        reply = await services.llm.chat(ChatRequest(messages=[{"role": "user", "content": "hi"}]))
        return Turn("", message=reply.message, value=reply.tool_calls)


def test_tool_calls_have_ids_of_their_own_whoever_asks(tmp_path: Path) -> None:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": given, "type": "function", "function": function} for given in ("a", "a", "", None, 5)]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    reply = ChatReply(text="", finish_reason="tool_calls", message=message, tool_calls=calls)
    done = peerloom.run(
        workflow=Sequence("a", "b"),
        agents={"a": Asks(), "b": Asks()},
        source=[{"n": 1}],
        llm=lambda request: reply,
        engine="local",
        run_dir=tmp_path / "run",
        progress=False,
    )
    (row,) = done.rows()
    ids = [[call["id"] for call in turn["value"]] for turn in row["turns"]]
    said = [call["id"] for turn in row["turns"] for call in turn["message"]["tool_calls"]]
    assert said == [*ids[0], *ids[1]]
    assert len({*ids[0], *ids[1]}) == 10
    assert ids[0][0] == "a"
