"""What is said of services that answer nobody: when, in which words, and when it ends the run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from peerloom.errors import ServiceError
from peerloom.protocol.messages import EndpointUpdate, HealthReport
from peerloom.runtime.driver import health as module
from peerloom.runtime.driver.health import ServiceHealth
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.services.llm.limits.service_quota import Limits, Refusing
from peerloom.services.llm.usage.amounts import UsageReport, encode
from peerloom.services.llm.usage.budget import Budget

Make = Callable[..., "Told"]


class Told:
    """A session's health at work, what it tells, and how it ended."""

    def __init__(self, run_dir: Path, optional: tuple[str, ...]) -> None:
        self.texts: list[str] = []
        self.sent: list[tuple[str, EndpointUpdate]] = []
        self.health = ServiceHealth(
            run_dir,
            members=lambda: ["peer-0.1", "peer-1.1"],
            send=lambda member, update: self.sent.append((member, update)),
            notify=lambda notice: self.texts.append(notice.text),
        )
        self.running = asyncio.create_task(self.health.run(optional))

    def says(
        self, member: str, service: str = "big", down: str = "", denied: bool = False, answered: bool = False
    ) -> None:
        self.health.add_report(member, HealthReport(service, down, denied, answered))

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
    assert told.health.down == "big does not answer (refused)"
    told.says("peer-0.1", down="HTTP 503")
    await asyncio.sleep(0.15)
    told.says("peer-0.1")
    await asyncio.sleep(0.02)
    assert told.health.down, "the other peer still waits"
    told.says("peer-1.1")
    assert await told.until(2) == [
        "big does not answer, its tasks wait for it and none fails: refused",
        "big answers again",
    ]
    assert told.health.down == ""


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
    told.health.lost("peer-0.1")
    assert (await told.until(2))[1] == "big answers again"


async def test_a_service_that_refuses_all_calls_is_away_too(make: Make) -> None:
    told = make()
    told.health.set_refusing([Refusing("big", "HTTP 429", 0.0, 9.0, 0)])
    assert await told.until(1) == [
        "big does not answer, its tasks wait for it and none fails: it refuses calls: HTTP 429"
    ]
    told.health.set_refusing([])
    assert (await told.until(2))[1] == "big answers again"


async def test_a_service_that_another_stands_in_for_is_told_of_and_not_waited_for(make: Make) -> None:
    told = make("big")
    told.says("peer-0.1", down="HTTP 401: no such key", denied=True)
    assert await told.until(1) == ["big does not answer, another service steps in: HTTP 401: no such key"]
    assert told.health.down == ""
    assert not told.running.done()


async def test_a_denial_ends_the_run_unless_anything_was_answered_before(make: Make) -> None:
    told = make()
    told.says("peer-0.1", answered=True)
    told.says("peer-1.1", down="HTTP 402", denied=True)
    assert await told.until(1) == ["big does not answer, its tasks wait for it and none fails: HTTP 402"]
    told.says("peer-1.1", "small", down="HTTP 401", denied=True)
    with pytest.raises(ServiceError, match=r"small: HTTP 401\. Nothing was answered yet; fix it, then"):
        await told.running


async def test_where_replicas_are_is_told_to_all_and_to_those_that_come_later(make: Make) -> None:
    told = make()
    told.health.set_endpoints("big", ["http://one"])
    told.health.set_endpoints("big", ["http://two"])
    one, two = EndpointUpdate("big", 1, ["http://one"]), EndpointUpdate("big", 2, ["http://two"])
    assert told.sent == [("peer-0.1", one), ("peer-1.1", one), ("peer-0.1", two), ("peer-1.1", two)]
    told.health.joined("peer-2.1")
    assert told.sent[4:] == [("peer-2.1", two)]


async def test_calls_of_services_without_limits_are_not_counted(tmp_path: Path) -> None:
    """Their peers report nothing: what one has said of them would stay so for ever."""
    quota = QuotaCoordinator(
        {"big": Limits()}, Budget(), tmp_path, send=lambda *_: None, notify=lambda _: None
    )
    quota.add_reports("peer-0.1", encode([UsageReport(service="big", number=1, outstanding=7)]))
    assert quota.outstanding == 0
