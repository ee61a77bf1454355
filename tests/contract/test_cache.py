"""The cache is shared by peers, by runs and by processes, on both engines."""

from pathlib import Path

import programs
import pytest

from peerloom.services.llm.cache.client import CacheSettings
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.services.llm.usage.prices import Price, Prices
from peerloom.testing import execute


async def test_a_second_run_costs_nothing_and_has_the_same_rows(engine: str, tmp_path: Path) -> None:
    model = SimulatedService(tokens=20, tokens_sigma=0.0)
    shape = {
        "engine": engine,
        "peers": 2,
        "cache": CacheSettings(path=str(tmp_path / "cache.db"), size_gb=0.01),
        "prices": Prices({"simulated": Price(prompt=1.0, completion=1.0)}),
    }
    rows = [{"n": number} for number in range(12)]
    first = await execute(programs.talk(), rows, model, tmp_path / "one", **shape)
    again = await execute(programs.talk(), rows, model, tmp_path / "two", **shape)
    assert [row["messages"] for row in first.rows] == [row["messages"] for row in again.rows]
    paid, saved = first.summary, again.summary
    assert (saved["llm_calls"], saved["usd"], saved["tokens"]["completion"]) == (0, 0.0, 0)
    assert (saved["cache"]["hits"], saved["cache"]["misses"]) == (paid["llm_calls"], 0)
    assert saved["cache"]["hit_rate"] == 1.0
    assert saved["cache"]["saved_tokens"] == paid["tokens"]["prompt"] + paid["tokens"]["completion"]
    assert saved["cache"]["saved_usd"] == pytest.approx(paid["usd"], abs=2e-6) and paid["usd"] > 0
    assert all(row["usage"]["calls"] == 0 for row in again.rows)
