"""Ten thousand calls, a hundred of each fault there is among them: no task is lost, no reply paid twice."""

from collections import Counter
from pathlib import Path

import pytest
from provider import dialogues, provider, stats

from peerloom.sink.read import read_rows

TASKS, CALLS = 2_000, 5
FAULTS = ("429", "5xx", "hang", "garbage", "truncation", "half_closed", "slow", "cut", "content_type")
RETRIED = [fault for fault in FAULTS if fault not in ("truncation", "slow")]
LAWS = {
    "latency": 0.02,
    "latency_sigma": 0.5,
    "tokens": 40,
    "retry_after": 0.2,
    "slow_seconds": 0.3,
    **{f"rate_{fault}": 0.01 for fault in FAULTS},
}


@pytest.mark.slow
def test_every_task_ends_in_a_row_and_nothing_outlives_it(tmp_path: Path) -> None:
    with provider(**LAWS) as url:
        roles, timeout = [f"speaker{number}" for number in range(CALLS)], {"llm.timeout": 3.0}
        result = dialogues(url, tmp_path / "run", "local", TASKS, in_flight=400, roles=roles, **timeout)
        counts = stats(url)
    rows = list(read_rows(tmp_path / "run"))
    assert result.how == "finished"
    assert len({row["id"] for row in rows}) == len(rows) == TASKS

    cut = counts["faults"]["truncation"]
    assert Counter((row["outcome"], row["reason"]) for row in rows) == {
        ("completed", ""): TASKS - cut,
        ("truncated", "max_tokens"): cut,
    }
    assert {row["timing"]["hops"] for row in rows if row["outcome"] == "completed"} == {CALLS}

    counted = sum(row["usage"]["calls"] for row in rows)
    discarded = (
        counts["faults"]["garbage"] + counts["faults"]["content_type"]
    )  # answered with 200 all the same
    assert counted == counts["served"] + discarded, "each reply was paid once, and is in a row"
    assert counted > 0.9 * TASKS * CALLS
    for kind in ("prompt", "completion", "cached"):
        assert sum(row["usage"][kind] for row in rows) == counts["tokens"][kind]
    assert all(counted * 0.005 < counts["faults"][fault] < counted * 0.02 for fault in FAULTS), counts

    assert counts["left"] == counts["faults"]["hang"], "no request but one that hangs is given up"
    assert (counts["in_flight"], counts["running"], counts["open_connections"]) == (0, 0, 0)
