"""Compose the summary of a run."""

from collections.abc import Mapping
from typing import Any

import msgspec

from peerloom.services.llm.cache.client import CachedSpec, CacheTally
from peerloom.services.llm.client.service import ClientSpec
from peerloom.sink.totals import AgentTally, Totals
from peerloom.task import COMPLETED

Summary = dict[str, Any]


def summarise(
    totals: Totals,
    *,
    wall_seconds: float,
    cpu_seconds: float,
    sessions: int = 1,
    startup_seconds: float = 0.0,
) -> Summary:
    """Return the content of `summary.json`, from the totals; seconds are those of all sessions.

    `tokens_per_second` leaves the startup out.

    Each agent's `cache_hit_rate` is the share of its prompt tokens that the service had in its prefix cache.
    """
    agents = totals.agents
    completion = sum(tally.completion for tally in agents.values())
    working = max(0.0, wall_seconds - startup_seconds)
    return {
        "admitted": totals.admitted,
        "outcomes": dict(totals.outcomes),
        "reasons": dict(totals.reasons),
        "tokens": {
            "prompt": sum(tally.prompt for tally in agents.values()),
            "completion": completion,
            "cached": sum(tally.cached for tally in agents.values()),
        },
        "tokens_per_second": round(completion / working, 3) if working else 0.0,
        "llm_calls": sum(tally.calls for tally in agents.values()),
        "wall_seconds": round(wall_seconds, 3),
        "startup_seconds": round(startup_seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "sessions": sessions,
        "agents": {name: _agent_entry(tally) for name, tally in agents.items()},
    }


def costs(summary: Mapping[str, Any], client: ClientSpec | None, tally: CacheTally) -> dict[str, Any]:
    """Return the costs for the summary.

    `usd` is the cost of all rows, and `usd_per_completed_row` its quotient by the completed rows; both are
    omitted unless the prices of all models are known. `cache` reports the use of the cache in this session,
    if there is one.
    """
    report: dict[str, Any] = {}
    if client is not None and all(fleet.price is not None for fleet in client.fleets):
        report["usd"] = round(sum(agent["usd"] for agent in summary["agents"].values()), 6)
        if completed := summary["outcomes"].get(COMPLETED, 0):
            report["usd_per_completed_row"] = round(report["usd"] / completed, 9)
    if isinstance(client, CachedSpec):
        calls = tally.hits + tally.misses
        report["cache"] = {
            "hits": tally.hits,
            "misses": tally.misses,
            "hit_rate": round(tally.hits / calls, 4) if calls else 0.0,
            "saved_tokens": tally.tokens,
            "saved_usd": round(tally.usd, 6),
        }
    return report


def _agent_entry(tally: AgentTally) -> dict[str, float]:
    rate = round(tally.cached / tally.prompt, 4) if tally.prompt else 0.0
    return {**msgspec.structs.asdict(tally), "cache_hit_rate": rate}
