"""How often the run looks for tasks when no rows come."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from peerloom.runtime.driver import stats as gathering
from peerloom.runtime.driver.hooks import HookDispatcher
from peerloom.runtime.driver.stats import RunStats, watch_progress


class Supervised:
    """A run without members; the moments at which a census was asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.now = 0.0
        self.asked: list[float] = []

    def census(self) -> None:
        self.asked.append(self.now)

    def rows_committed(self) -> None: ...

    def poison_committed(self) -> None: ...


class Over(Exception):
    """The clock has come to its end."""


async def test_while_no_rows_come_a_census_is_asked_for_less_and_less_often(monkeypatch: pytest.MonkeyPatch):
    run = Supervised()
    monkeypatch.setattr(gathering, "time", SimpleNamespace(monotonic=lambda: run.now))
    monkeypatch.setattr(gathering, "STATS_SECONDS", 0.0)

    def progress() -> Any:
        run.now += 0.5
        if run.now > 600:
            raise Over
        return None

    control = SimpleNamespace(stalled="")
    with pytest.raises(Over):
        await watch_progress(RunStats(), cast("Any", run), cast("Any", control), HookDispatcher([]), progress)
    gaps = [later - earlier for earlier, later in pairwise(run.asked)]
    assert 2 <= run.asked[0] <= 3.5
    assert gaps[:4] == [pytest.approx(gap, abs=1) for gap in (4, 8, 16, 32)]
    assert gaps[4:] == [pytest.approx(60, abs=1)] * len(gaps[4:])
    assert len(gaps) > 10
