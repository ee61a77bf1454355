"""Prepare the model client for peers: set its prices, metering, and cache; and report its costs."""

from collections.abc import Mapping
from typing import Any

from peerloom.runtime.settings import RunSettings
from peerloom.services.llm.cache.client import CachedSpec, CacheTally
from peerloom.services.llm.client.service import ClientSpec
from peerloom.services.llm.usage.prices import require_price
from peerloom.task import COMPLETED


def prepared(client: ClientSpec, settings: RunSettings, *, everything: bool) -> ClientSpec:
    """Return the client for the peers.

    Args:
        client: the client of the service.
        settings: the settings of the run.
        everything: whether all calls are metered, not only those of services with limits.

    Raises:
        ConfigError: if the budget is in dollars and a price is unknown.
    """
    client = client.with_prices(settings.prices)
    if settings.budget.usd is not None:
        require_price([(fleet.model, fleet.price) for fleet in client.fleets])
    client = client.with_limits(everything)
    return client if settings.cache is None else CachedSpec(client, settings.cache)


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
