"""The client as peers get it: it knows what tokens cost, is metered, and has the cache before it."""

from collections.abc import Mapping
from typing import Any

from peerloom.runtime.settings import RunSettings
from peerloom.services.llm.cache.client import CachedSpec, CacheTally
from peerloom.services.llm.client.service import ClientSpec
from peerloom.services.llm.usage.prices import require_price
from peerloom.task import COMPLETED


def prepared(client: ClientSpec, settings: RunSettings, *, everything: bool) -> ClientSpec:
    """What the peers get.

    Args:
        client: as the service gave it.
        settings: of the run.
        everything: meter all calls, not only those of services with limits.

    Raises:
        ConfigError: if the budget is in dollars and a price is not known.
    """
    client = client.priced(settings.prices)
    if settings.budget.usd is not None:
        require_price([(fleet.model, fleet.price) for fleet in client.fleets])
    client = client.metered(everything)
    return client if settings.cache is None else CachedSpec(client, settings.cache)


def costs(summary: Mapping[str, Any], client: ClientSpec | None, tally: CacheTally) -> dict[str, Any]:
    """What the summary says of money.

    `usd` is what all rows have cost, and `usd_per_completed_row` what that makes for each that was completed;
    both are left out unless the price of each model is known. `cache`, if there is one, is what it was good
    for in this session.
    """
    told: dict[str, Any] = {}
    if client is not None and all(fleet.price is not None for fleet in client.fleets):
        told["usd"] = round(sum(agent["usd"] for agent in summary["agents"].values()), 6)
        if completed := summary["outcomes"].get(COMPLETED, 0):
            told["usd_per_completed_row"] = round(told["usd"] / completed, 9)
    if isinstance(client, CachedSpec):
        calls = tally.hits + tally.misses
        told["cache"] = {
            "hits": tally.hits,
            "misses": tally.misses,
            "hit_rate": round(tally.hits / calls, 4) if calls else 0.0,
            "saved_tokens": tally.tokens,
            "saved_usd": round(tally.usd, 6),
        }
    return told
