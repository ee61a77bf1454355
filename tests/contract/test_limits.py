"""A strict provider refuses next to nothing, since the peers together keep to its limits."""

from pathlib import Path
from typing import Any

import pytest
from provider import provider, stats

import peerloom
from peerloom.agents.llm import LLMAgent
from peerloom.workflow import Sequence

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
    roles = ("solver", "critic", "judge")
    with provider(**LAWS, **strict) as url:
        result = peerloom.run(
            workflow=Sequence(*roles),
            agents={role: LLMAgent(opening="Topic {{ input.n }}", dialogue=True) for role in roles},
            source=[{"n": number} for number in range(TASKS)],
            llm="openai",
            engine=engine,
            in_flight=100,
            config={
                "llm.base_url": f"{url}/v1",
                **{f"llm.limits.{name}": value for name, value in limits.items()},
                "llm.limits.window_seconds": WINDOW,
                "peers": 3,
            },
            run_dir=tmp_path / "run",
            progress=False,
        )
        counts = stats(url)
    assert result.how == "finished"
    assert result.summary["outcomes"] == {"completed": TASKS}
    assert counts["served"] == 3 * TASKS == result.summary["llm_calls"]
    assert counts["refused"] <= 0.005 * counts["served"], counts
