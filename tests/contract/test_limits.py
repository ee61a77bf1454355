"""A strict provider refuses next to nothing, since the peers together keep to its limits."""

from pathlib import Path
from typing import Any

import pytest
from provider import dialogues, provider, stats

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
