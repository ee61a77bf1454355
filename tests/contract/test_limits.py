"""A strict provider refuses next to nothing, since the peers together keep to its limits."""

from pathlib import Path
from typing import Any

import pytest
from programs import talk
from provider import dialogues, provider, stats

from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.services.llm.client.router import ServiceOptions, ServiceRouter
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.services.llm.usage.budget import Budget
from peerloom.testing import execute

TASKS, WINDOW = 80, 4.0
LAWS = {"latency": 0.05, "latency_sigma": 0.5, "tokens": 40, "tokens_sigma": 1.0, "limit_window": WINDOW}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strict", "limits"),
    [
        ({"limit_rpm": 200}, {"requests_per_minute": 200 * 60 / WINDOW}),
        ({"limit_tpm": 30_000}, {"tokens_per_minute": 30_000 * 60 / WINDOW}),
    ],
    ids=["requests", "tokens"],
)
def test_all_rows_are_completed_and_hardly_a_call_is_refused(
    engine: str, tmp_path: Path, strict: dict[str, Any], limits: dict[str, Any]
) -> None:
    told = {f"llm.limits.{name}": value for name, value in limits.items()}
    config = {**told, "llm.limits.window_seconds": WINDOW, "peers": 3}
    with provider(**LAWS, **strict) as url:
        result = dialogues(url, tmp_path / "run", engine, TASKS, in_flight=100, **config)
        counts = stats(url)
    assert result.how == "finished"
    assert result.summary["outcomes"] == {"completed": TASKS}
    assert counts["served"] == 3 * TASKS == result.summary["llm_calls"]
    assert counts["refused"] <= 0.005 * counts["served"], counts


@pytest.mark.parametrize(
    ("limits", "budget", "reported"),
    [
        (Limits(), Budget(), False),
        (Limits(), Budget(minutes=9), False),
        (Limits(concurrency=99), Budget(), True),
        (Limits(), Budget(calls=999), True),
    ],
    ids=["none", "of time", "limit", "budget"],
)
async def test_usage_is_reported_only_if_something_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, budget: Budget, reported: bool
) -> None:
    reports: list[bytes] = []
    add_reports = QuotaCoordinator.add_reports

    def count(quota: QuotaCoordinator, member: str, data: bytes) -> None:
        reports.append(data)
        add_reports(quota, member, data)

    monkeypatch.setattr(QuotaCoordinator, "add_reports", count)
    llm = ServiceRouter({"llm": SimulatedService()}, options={"llm": ServiceOptions(limits=limits)})
    rows = [{"n": number} for number in range(20)]
    done = await execute(talk(), rows, llm, tmp_path / "run", peers=2, budget=budget)
    assert done.summary["outcomes"] == {"completed": 20}
    assert bool(reports) is reported
