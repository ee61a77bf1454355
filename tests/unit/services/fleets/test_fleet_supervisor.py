import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from peerloom.errors import ServiceError
from peerloom.services.fleets.directory import Entry, Listed, read
from peerloom.services.fleets.supervisor import FleetSupervisor


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))


class Stub:
    """What is kept: says one thing, then waits until it may come up."""

    def __init__(self, fails: str = "", stays: str = "") -> None:
        self.fails = fails
        self.stays = stays
        self.may_come_up = asyncio.Event()

    async def start(self, tell: Callable[[str], None], log_dir: Path) -> None:
        tell("it waits for a node")
        if self.fails:
            raise ServiceError(self.fails)
        await self.may_come_up.wait()

    async def watch(self, changed: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    def listed(self) -> Sequence[Listed]:
        return ()

    async def stop(self) -> None:
        if self.stays:
            raise ServiceError(self.stays)


def keep(path: Path, serving: Stub, stopped: asyncio.Event) -> asyncio.Task[None]:
    entry = Entry(model="m", endpoints=(), ray="h:1")
    return asyncio.create_task(FleetSupervisor(path, entry, serving, lambda _: None).run(stopped))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - it is a file
            await asyncio.sleep(0.01)


async def test_what_it_waits_for_is_in_the_directory_until_it_is_up(tmp_path: Path) -> None:
    path, serving, stopped = tmp_path / "mine.json", Stub(), asyncio.Event()
    keeping = keep(path, serving, stopped)
    await until(lambda: path.exists() and read(path).detail == "it waits for a node")
    assert read(path).state == "starting"
    serving.may_come_up.set()
    await until(lambda: read(path).state == "up")
    assert (read(path).detail, read(path).ray) == ("", "h:1")
    stopped.set()
    await keeping
    assert not path.exists()


async def test_one_that_failed_and_was_ended_has_to_be_ended_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(ServiceError, match="too large"):
        await keep(path, Stub(fails="too large"), asyncio.Event())
    assert (read(path).state, read(path).detail, read(path).ray) == ("failed", "too large", None)


async def test_one_that_could_not_be_ended_is_still_on_its_cluster(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(ServiceError, match="not deleted"):
        await keep(path, Stub(fails="too large", stays="not deleted"), asyncio.Event())
    assert (read(path).state, read(path).ray) == ("failed", "h:1")
