from dataclasses import replace

from peerloom.runtime.driver.stats import RunStats
from peerloom.runtime.driver.summary import costs, summarise
from peerloom.runtime.member.events import MemberStats
from peerloom.services.llm.cache.client import CacheTally
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.usage.prices import FREE
from peerloom.sink.totals import AgentTally, Totals


def committed(outcome: str, count: int) -> Totals:
    totals = Totals()
    for _ in range(count):
        totals.add_row(outcome, "", {"a": AgentTally(1, 2, 30, 10, 5, 0.5)})
    return totals


def test_a_replaced_sink_is_counted_once_and_dead_peers_go_on_counting() -> None:
    stats = RunStats()
    stats.update("sink-0.9", MemberStats(totals=committed("completed", 3)))
    stats.update("sink-0.10", MemberStats(totals=committed("completed", 5)))
    stats.update("sink-1.1", MemberStats(totals=committed("failed", 2)))
    stats.update("peer-0.1", MemberStats(hops=7, cpu_seconds=1.0, agents={"a": AgentTally(turns=7)}, turns=3))
    stats.update("peer-0.2", MemberStats(hops=1, cpu_seconds=0.5, agents={"a": AgentTally(turns=1)}, turns=2))
    stats.update("feeder-0.1", MemberStats(in_flight=9))
    stats.update("feeder-0.2", MemberStats(in_flight=4))
    progress = stats.progress(1.0, 20)
    assert progress.outcomes == {"completed": 5, "failed": 2}
    assert (progress.admitted, progress.in_flight, progress.hops) == (11, 4, 8)
    assert progress.turns == 2  # of the living
    assert progress.agents["a"].turns == 8
    assert stats.cpu_seconds() == 1.5


def test_the_summary_adds_up_what_is_committed() -> None:
    summary = summarise(committed("completed", 4), wall_seconds=2.0, cpu_seconds=1.0)
    assert summary["admitted"] == 4
    assert summary["tokens"] == {"prompt": 120, "completion": 40, "cached": 20}
    assert summary["tokens_per_second"] == 20.0
    assert summary["llm_calls"] == 8
    assert summary["agents"]["a"]["cache_hit_rate"] == 0.1667


def test_a_completed_row_has_its_price_if_tokens_have() -> None:
    totals = committed("completed", 4)
    totals.add(committed("failed", 1))
    totals.agents["a"].usd = 0.02
    summary = summarise(totals, wall_seconds=2.0, cpu_seconds=1.0)
    known = ReplicatedClientSpec(model="m", replicas=("r",), backend_factory=str, price=FREE)  # type: ignore[arg-type]  # never dialled
    told = costs(summary, known, CacheTally())
    assert told == {"usd": 0.02, "usd_per_completed_row": 0.005}
    assert costs(summary, replace(known, price=None), CacheTally()) == {}
    nothing = summarise(committed("failed", 1), wall_seconds=2.0, cpu_seconds=1.0)
    assert costs(nothing, known, CacheTally()) == {"usd": 0.0}


def test_rows_of_earlier_sessions_count_before_the_sinks_have_spoken() -> None:
    stats = RunStats()
    stats.earlier = committed("completed", 7)
    progress = stats.progress(20.0, None, 12.0)
    assert (progress.earlier_rows, progress.earlier_seconds) == (7, 12.0)
    assert progress.outcomes == {"completed": 7}
    stats.update("sink-0.1000001", MemberStats(totals=committed("completed", 4)))  # one of two shards
    assert stats.progress(20.0, None).outcomes == {"completed": 7}
    stats.update("sink-1.1000001", MemberStats(totals=committed("completed", 5)))
    assert stats.progress(20.0, None).outcomes == {"completed": 9}


def test_the_start_is_no_part_of_the_speed() -> None:
    totals = committed("completed", 1)
    slow = summarise(totals, wall_seconds=10.0, cpu_seconds=1.0)["tokens_per_second"]
    quick = summarise(totals, wall_seconds=10.0, startup_seconds=8.0, cpu_seconds=1.0)
    assert quick["tokens_per_second"] == 5 * slow > 0
    assert quick["startup_seconds"] == 8.0
