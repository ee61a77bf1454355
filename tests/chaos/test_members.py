"""Members die or stop in the middle of a run on Ray: every task still has its row, once."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import slow

from peerloom.events import Hooks, MemberJoined, MemberLost, Progress
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.testing import Finished, execute

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

TASKS = 600
EXPECTED = [f"0-{row}-0" for row in range(TASKS)]


class Striker(Hooks):
    """Strikes each named kind of member once, at different moments of the run."""

    def __init__(self, strikes: dict[float, Callable[["Striker"], None]]) -> None:
        self.pids: dict[str, int] = {}
        self.lost: list[MemberLost] = []
        self._strikes = dict(strikes)

    def member_joined(self, event: MemberJoined) -> None:
        self.pids[event.member] = event.pid

    def member_lost(self, event: MemberLost) -> None:
        self.lost.append(event)
        self.pids.pop(event.member, None)

    def progress(self, event: Progress) -> None:
        done = sum(event.outcomes.values()) / TASKS
        for moment in [moment for moment in self._strikes if done >= moment]:
            self._strikes.pop(moment)(self)

    @property
    def struck_out(self) -> bool:
        return not self._strikes

    def signal(self, kind: str, number: int) -> None:
        name = next(name for name in self.pids if name.startswith(kind))
        os.kill(self.pids[name], number)


def kill(kind: str) -> Callable[[Striker], None]:
    return lambda striker: striker.signal(kind, signal.SIGKILL)


def stop(kind: str) -> Callable[[Striker], None]:
    return lambda striker: striker.signal(kind, signal.SIGSTOP)


async def run(striker: Striker, run_dir: Path, **settings: object) -> Finished:
    async with asyncio.timeout(90):
        return await execute(
            slow(0.05, hops=4),
            [{"n": number} for number in range(TASKS)],
            SimulatedService(),
            run_dir,
            hooks=[striker],
            engine="ray",
            in_flight=40,
            **settings,
        )


def assert_exactly_once(done: Finished) -> None:
    assert [row["id"] for row in done.rows] == EXPECTED
    assert done.summary["admitted"] == TASKS
    assert done.summary["outcomes"] == {"completed": TASKS}


@pytest.mark.parametrize("placement", ["packed", "spread"])
async def test_peer_sink_and_feeder_are_killed(placement: str, tmp_path: Path) -> None:
    striker = Striker({0.1: kill("peer"), 0.3: kill("sink"), 0.5: kill("feeder"), 0.7: kill("peer")})
    done = await run(striker, tmp_path / "run", placement=placement)
    assert striker.struck_out
    assert len(striker.lost) == 4
    assert_exactly_once(done)


async def test_all_at_once(tmp_path: Path) -> None:
    def everyone(striker: Striker) -> None:
        for pid in striker.pids.values():
            os.kill(pid, signal.SIGKILL)

    done = await run(Striker({0.3: everyone}), tmp_path / "run", shards=2, partitions=2)
    assert_exactly_once(done)


@pytest.mark.parametrize("kind", ["peer", "sink", "feeder"])
async def test_a_stopped_member_is_suspected_and_replaced(kind: str, tmp_path: Path) -> None:
    striker = Striker({0.3: stop(kind)})
    done = await run(
        striker, tmp_path / "run", heartbeat_seconds=0.1, suspect_seconds=1.0, deliver_seconds=1.0
    )
    assert striker.lost
    assert_exactly_once(done)
