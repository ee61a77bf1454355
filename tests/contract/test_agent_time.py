"""Agents that never return, or keep the event loop to themselves."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import ChatRequest, LLMAgent, Sequence, Task, Turn
from peerloom.agents.base import Services
from peerloom.errors import ConfigError
from peerloom.runtime.steps import time_limit as own_time


class Endless:
    async def act(self, task: Task, services: Services) -> Turn:
        if task.input["n"] == 1:
            await services.llm.chat(ChatRequest(messages=[{"role": "user", "content": "Slow?"}]))
            await asyncio.Event().wait()
        return Turn("", value=task.input["n"])


class Stubborn:
    """Goes on after it was cancelled; the second one in a way that comes to an end."""

    async def act(self, task: Task, services: Services) -> Turn:
        if task.input["n"] < 2:
            tries = 0
            while task.input["n"] == 0 or tries < 2:
                tries += 1
                try:
                    await asyncio.Event().wait() if tries < 3 else await asyncio.sleep(0.01)
                except BaseException:
                    continue
        return Turn("", value=task.input["n"])


class TidiesUp:
    """Waits for something in its cleanup."""

    async def act(self, task: Task, services: Services) -> Turn:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            TidiesUp.tidied += 1
        return Turn("", value=1)

    tidied = 0


class SlowlyAnswered:
    async def act(self, task: Task, services: Services) -> Turn:
        request = ChatRequest(messages=[{"role": "user", "content": "Slow?"}])
        await asyncio.gather(services.llm.chat(request), services.llm.chat(request))
        return Turn("", value="answered")


class Blocking:
    async def act(self, task: Task, services: Services) -> Turn:
        time.sleep(0.3)  # noqa: ASYNC251 - that is the fault
        return Turn("", value=1)


def run(agent: Any, path: Path, engine: str = "local", **config: Any) -> peerloom.RunResult:
    return peerloom.run(
        workflow=Sequence("thinker"),
        agents={"thinker": agent},
        source=[{"n": number} for number in range(4)],
        llm="simulated",
        engine="ray" if engine == "ray" else "local",
        run_dir=path / "run",
        config=config,
        progress=False,
    )


def test_an_agent_that_never_returns_fails_its_task(engine: str, tmp_path: Path) -> None:
    done = run(Endless(), tmp_path, engine, **{"agents.thinker.timeout": 0.2})
    assert done.summary["outcomes"] == {"completed": 3, "failed": 1}
    (row,) = [row for row in done.rows(rejected=True) if row["outcome"] == "failed"]
    assert (row["input"]["n"], row["reason"]) == (1, "agent_timeout")
    assert row["detail"] == "thinker has not returned within 0.2 s (agents.thinker.timeout)"
    assert row["usage"]["calls"] == 1, "what it has asked is paid"


def test_an_agent_that_ignores_its_cancellation_is_let_go(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_time, "GRACE_SECONDS", 0.2)
    done = run(Stubborn(), tmp_path, engine, **{"agents.thinker.timeout": 0.1})
    assert done.summary["outcomes"] == {"completed": 2, "failed": 2}
    assert done.summary["reasons"] == {"agent_timeout": 2}


def test_an_agent_may_tidy_up(tmp_path: Path) -> None:
    done = run(TidiesUp(), tmp_path, **{"agents.thinker.timeout": 0.1})
    assert done.summary["reasons"] == {"agent_timeout": 4}
    assert TidiesUp.tidied == 4


def test_time_in_which_calls_are_answered_does_not_count(tmp_path: Path) -> None:
    done = run(SlowlyAnswered(), tmp_path, **{"agents.thinker.timeout": 0.2, "llm.latency": 0.5})
    assert done.summary["outcomes"] == {"completed": 4}


def test_a_timeout_of_no_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agents\.tinker.*thinker"):
        run(LLMAgent("Hello"), tmp_path, **{"agents.tinker.timeout": 1})


def test_an_agent_that_blocks_the_event_loop_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(own_time, "TICK_SECONDS", 0.02)
    assert run(Blocking(), tmp_path).summary["outcomes"] == {"completed": 4}
    assert "agent 'thinker' has blocked the event loop" in capfd.readouterr().err
