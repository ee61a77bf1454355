"""What is said of services that answer nobody: when, in which words, and when it ends the run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from peerloom.errors import ServiceError
from peerloom.runtime.driver import quota as module
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.usage.amounts import UsageReport, encode
from peerloom.services.llm.usage.budget import Budget

Make = Callable[..., "Told"]


class Told:
    """A session's rationing at work, what it tells, and how it ended."""

    def __init__(self, run_dir: Path, optional: tuple[str, ...]) -> None:
        self.texts: list[str] = []
        self.number = 0
        self.rationing = QuotaCoordinator(
            {"big": Limits(), "small": Limits()},
            Budget(),
            run_dir,
            members=list[str],
            send=lambda member, data: None,
            notify=lambda notice: self.texts.append(notice.text),
            optional=optional,
        )
        self.running = asyncio.create_task(self.rationing.run())

    def says(self, member: str, service: str = "big", **fields: Any) -> None:
        self.number += 1
        self.rationing.add_reports(
            member, encode([UsageReport(service=service, number=self.number, **fields)])
        )

    async def until(self, texts: int) -> list[str]:
        async with asyncio.timeout(5):
            while len(self.texts) < texts:  # noqa: ASYNC110 - notices come when they come
                await asyncio.sleep(0.005)
        return self.texts


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr(module, "OUTAGE_SECONDS", 0.1)
    made: list[Told] = []

    def start(*optional: str) -> Told:
        made.append(Told(tmp_path, optional))
        return made[-1]

    yield start
    for told in made:
        told.running.cancel()
        await asyncio.wait((told.running,))


async def test_an_absence_is_told_once_and_so_is_its_end(make: Make) -> None:
    told = make()
    told.says("peer-0.1", down="refused")
    told.says("peer-1.1", down="refused")
    await told.until(1)
    assert told.rationing.away == "big does not answer (refused)"
    told.says("peer-0.1", down="HTTP 503")
    await asyncio.sleep(0.15)
    told.says("peer-0.1")
    await asyncio.sleep(0.02)
    assert told.rationing.away, "the other peer still waits"
    told.says("peer-1.1")
    assert await told.until(2) == [
        "big does not answer, its tasks wait for it and none fails: refused",
        "big answers again",
    ]
    assert told.rationing.away == ""


async def test_a_moment_is_not_worth_a_word(make: Make) -> None:
    told = make()
    told.says("peer-0.1", down="refused")
    await asyncio.sleep(0.03)
    told.says("peer-0.1")
    told.says("peer-0.1", "small", down="gone")
    assert await told.until(1) == ["small does not answer, its tasks wait for it and none fails: gone"]


async def test_a_peer_that_has_ended_waits_for_nothing(make: Make) -> None:
    told = make()
    told.says("peer-0.1", down="refused")
    await told.until(1)
    told.rationing.lost("peer-0.1")
    assert (await told.until(2))[1] == "big answers again"


async def test_a_service_that_another_stands_in_for_is_told_of_and_not_waited_for(make: Make) -> None:
    told = make("big")
    told.says("peer-0.1", down="HTTP 401: no such key", denied=True)
    assert await told.until(1) == ["big does not answer, another service steps in: HTTP 401: no such key"]
    assert told.rationing.away == ""
    assert not told.running.done()


async def test_a_denial_ends_the_run_unless_anything_was_answered_before(make: Make) -> None:
    told = make()
    told.says("peer-0.1", answered=1, seconds=0.5)
    told.says("peer-1.1", down="HTTP 402", denied=True)
    assert await told.until(1) == ["big does not answer, its tasks wait for it and none fails: HTTP 402"]
    told.says("peer-1.1", "small", down="HTTP 401", denied=True)
    with pytest.raises(ServiceError, match=r"small: HTTP 401\. Nothing was answered yet; mend it, then"):
        await told.running


async def test_calls_of_services_without_limits_are_not_counted(make: Make) -> None:
    """Their peers say what is under way only when something happens: it would stay at that for ever."""
    told = make()
    told.says("peer-0.1", outstanding=7)
    assert told.rationing.outstanding == 0
