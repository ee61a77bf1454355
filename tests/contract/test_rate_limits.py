"""A service that refuses calls delays a run and fails no task; the wait is told, and can be ended."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import Talker
from provider import dialogues, provider, stats
from steering import Steered, going

import peerloom
from peerloom.cli.commands import ctl
from peerloom.runtime.program import Program
from peerloom.workflow import Sequence

ROWS = [{"n": number} for number in range(8)]
TALK = Program(Sequence("first", "second"), {role: Talker() for role in ("first", "second")})
LONG, AT_ONCE = 40, 10.0  # seconds


def waiting(snapshot: peerloom.Progress) -> bool:
    return bool(snapshot.waiting)


async def until_refused(run: Steered) -> float:
    """Have all calls refused, wait until the run says so, and return when the next attempt is made."""
    run.model.refuse(str(LONG))
    run.model.release()
    seen = await run.watch.until(waiting)
    assert seen.waiting == "for llm, which refuses calls (HTTP 429: slow down)"
    assert seen.waiting_until is not None
    return seen.waiting_until


async def test_the_wait_is_told_with_its_end(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with going(TALK, ROWS, tmp_path / "run", engine=engine, in_flight=8) as run:
        await run.model.until_waiting(8)
        until = await until_refused(run)
        assert 0 < until - time.time() <= LONG + 1
        status = await run.ask("status")
        assert status["waiting"]["service"] == "llm"
        assert status["waiting"]["why"] == "HTTP 429: slow down"
        assert status["waiting"]["until"] == pytest.approx(until, abs=1.0)
        await asyncio.to_thread(ctl.status, run.run_dir)
        assert "for llm, which refuses calls (HTTP 429: slow down)" in capsys.readouterr().out
        await run.ask("cancel")
        await run.ending


@pytest.mark.parametrize("verb", ["drain", "cancel"])
async def test_the_wait_can_be_ended_and_the_run_resumed(verb: str, engine: str, tmp_path: Path) -> None:
    async with going(TALK, ROWS, tmp_path / "run", engine=engine, in_flight=8) as run:
        await run.model.until_waiting(8)
        await until_refused(run)
        began = time.monotonic()
        await run.ask(verb)
        summary = await run.ending
        assert time.monotonic() - began < AT_ONCE
        if verb == "drain":
            assert summary["suspended"] == 8
            assert any("refuses calls (HTTP 429: slow down)" in text for text in run.watch.notices)
        paid = run.model.calls
    async with going(TALK, ROWS, tmp_path / "run", engine=engine, in_flight=8) as run:
        run.model.open()
        assert (await run.ending)["outcomes"] == {"completed": 8}
        assert run.model.calls <= 16 and paid >= 16


@pytest.mark.parametrize(("peers", "status"), [(1, ""), (2, "limit_req_status 429;")], ids=["1-503", "2-429"])
@pytest.mark.slow
def test_behind_nginx_all_rows_are_completed(
    nginx: Callable[..., str], peers: int, status: str, engine: str, tmp_path: Path
) -> None:
    with provider(latency=0.05) as model:
        zone = "limit_req_zone $binary_remote_addr zone=all:1m rate=10r/s;"
        url = nginx(f"location / {{ limit_req zone=all; {status} proxy_pass {model}; }}", zone)
        began = time.monotonic()
        done = dialogues(url, tmp_path / "run", engine, 20, in_flight=20, peers=peers)
        seconds = time.monotonic() - began
        assert stats(model)["served"] == 60
    assert done.summary["outcomes"] == {"completed": 20}
    assert seconds < 60.0, "ten times the ideal: it does not stand still"


async def test_a_short_refusal_is_not_told(tmp_path: Path) -> None:
    async with going(TALK, ROWS, tmp_path / "run", engine="local", in_flight=8) as run:
        await run.model.until_waiting(8)
        run.model.refuse("0.2")
        run.model.release()
        await asyncio.sleep(0.1)
        run.model.open()
        assert (await run.ending)["outcomes"] == {"completed": 8}
        assert not run.watch.latest.waiting
