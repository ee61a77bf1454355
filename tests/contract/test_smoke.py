"""A run on Ray that loses a process: the least that `make test` tries of Ray and of kills."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from programs import gated, stable

from peerloom.events import Hooks, MemberJoined, MemberLost, Progress
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.testing import Finished, execute

IN_FLIGHT = 8


class KillsAPeer(Hooks):
    """Kills the first peer once tasks are in flight, and then opens the gate."""

    def __init__(self, gate: Path) -> None:
        self.lost: list[str] = []
        self._gate = gate
        self._pids: dict[str, int] = {}

    def member_joined(self, event: MemberJoined) -> None:
        self._pids[event.member] = event.pid

    def member_lost(self, event: MemberLost) -> None:
        self.lost.append(event.member)

    def progress(self, event: Progress) -> None:
        if event.in_flight == IN_FLIGHT and "peer-0.1" in self._pids:
            os.kill(self._pids.pop("peer-0.1"), signal.SIGKILL)
            self._gate.touch()


class Smoke(NamedTuple):
    """A run on Ray, of which one peer was killed, and the same on the local engine."""

    ray: Finished
    local: Finished
    lost: list[str]


@pytest.fixture(scope="session")
def smoke(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    folder = tmp_path_factory.mktemp("smoke")
    gate = folder / "gate"
    killed = KillsAPeer(gate)
    rows = [{"n": number, "gate": str(gate)} for number in range(24)]

    def run(engine: str, *hooks: Hooks) -> Finished:
        shape: dict[str, Any] = {"engine": engine, "in_flight": IN_FLIGHT, "peers": 2}
        return asyncio.run(execute(gated(), rows, SimulatedService(), folder / engine, hooks=hooks, **shape))

    return Smoke(run("ray", killed), run("local"), killed.lost)


def test_a_run_on_ray_has_the_rows_of_a_local_one(smoke: Smoke) -> None:
    assert smoke.ray.summary["outcomes"] == {"completed": 24}
    assert [stable(row) for row in smoke.ray.rows] == [stable(row) for row in smoke.local.rows]


def test_a_killed_peer_is_noticed(smoke: Smoke) -> None:
    assert smoke.lost == ["peer-0.1"]
