"""A run on Ray that loses a process: the least that `make test` tries of Ray and of kills."""

import asyncio
import os
import signal
from typing import Any, NamedTuple

import pytest
from programs import stable, talk

from peerloom.events import Hooks, MemberJoined, MemberLost, Progress
from peerloom.services.llm.simulated import SimulatedService
from peerloom.testing import Finished, execute

ROWS = [{"n": number} for number in range(40)]


class KillsAPeer(Hooks):
    """Kills the first peer once a row is there."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.lost: list[str] = []

    def member_joined(self, event: MemberJoined) -> None:
        self.pids[event.member] = event.pid

    def member_lost(self, event: MemberLost) -> None:
        self.lost.append(event.member)

    def progress(self, event: Progress) -> None:
        if sum(event.outcomes.values()) >= 1 and "peer-0.1" in self.pids:
            os.kill(self.pids.pop("peer-0.1"), signal.SIGKILL)


class Smoke(NamedTuple):
    """A run on Ray, of which one peer was killed, and the same on the local engine."""

    ray: Finished
    local: Finished
    lost: list[str]


@pytest.fixture(scope="session")
def smoke(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    killed, folder = KillsAPeer(), tmp_path_factory.mktemp("smoke")

    def run(engine: str, *hooks: Hooks) -> Finished:
        settings: dict[str, Any] = {"engine": engine, "in_flight": 8, "peers": 2}
        model = SimulatedService(latency=0.1)
        return asyncio.run(execute(talk(), ROWS, model, folder / engine, hooks=hooks, **settings))

    return Smoke(run("ray", killed), run("local"), killed.lost)


def test_a_run_on_ray_has_the_rows_of_a_local_one(smoke: Smoke) -> None:
    assert smoke.ray.summary["outcomes"] == {"completed": len(ROWS)}
    assert [stable(row) for row in smoke.ray.rows] == [stable(row) for row in smoke.local.rows]


def test_a_killed_peer_is_noticed(smoke: Smoke) -> None:
    assert smoke.lost == ["peer-0.1"]
