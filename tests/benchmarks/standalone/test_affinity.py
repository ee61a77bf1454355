import asyncio
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.points import AffinityPoint, Setting, Without
from benchmarks.standalone import affinity
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.llamacpp.service import LlamaCppService
from peerloom.services.llm.simulated.service import SimulatedService


def test_rows_are_those_of_the_sample_again_and_again() -> None:
    rows = affinity.questions(60)
    assert len(rows) == 60
    assert rows[52:] == rows[:8]
    assert len({str(row) for row in rows}) == 52


@pytest.mark.parametrize(("without", "expected"), [(None, "conversation"), ("affinity", "none")])
async def test_calls_are_routed_as_the_setting_says(
    without: Without | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers are left out: the model is simulated, and so are the figures."""
    seen: list[ReplicatedClientSpec] = []

    async def start(self: LlamaCppService, *given: Any) -> ReplicatedClientSpec:
        return SimulatedService(prefix_cache=100_000).spec()

    async def perform(program: Any, source: Any, llm: Any, setting: Setting, *, path: Path, name: str) -> Any:
        from benchmarks.harness.run import work_in
        from peerloom.testing import execute

        seen.append(await llm.start("llm", None, print, tmp_path))
        done = await execute(program, source, SimulatedService(prefix_cache=100_000), path)
        assert done.summary["llm_calls"] == 12 * setting.tasks
        return work_in(path, setting.tasks)

    monkeypatch.setattr(LlamaCppService, "start", start)
    monkeypatch.setattr(affinity, "perform", perform)
    monkeypatch.chdir(tmp_path)
    async with asyncio.timeout(60):
        point = await affinity.run(Setting("packed", 8, 4, without))
    assert isinstance(point, AffinityPoint)
    assert seen[0].routing.affinity == expected
    assert 0 < point.prefix_hit_rate < 1
    assert point.evaluated_tokens == pytest.approx(point.prompt_tokens * (1 - point.prefix_hit_rate))
    assert point.tokens_per_second > 0 and point.wall_seconds > 0
