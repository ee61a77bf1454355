"""Define the keys of prices and of the reply cache, and resolve their values."""

import os
from pathlib import Path
from typing import Annotated, Any

from peerloom.config.sections.base import Section
from peerloom.options import FREE, Positive
from peerloom.services.llm.cache.client import CacheSettings
from peerloom.services.llm.usage.prices import GENAI

PricesValue = str | dict[str, Any] | None
"""Prices: `genai`, a file, or its content."""


class Cache(Section):
    """Cache of replies, of earlier runs too: an exactly equal request, seed included, is not sent again."""

    path: Annotated[str | None, FREE] = None
    """The file, on a local disk of each node; by default there is no cache."""
    size_gb: Annotated[Positive, FREE] = 4.0
    """The maximum size in GB; the least recently used replies are removed."""


def make_cache(cache: Cache, model: dict[str, Any]) -> CacheSettings | None:
    """Return the cache settings of a run; `model` holds the keys that identify the model."""
    if cache.path is None:
        return None
    return CacheSettings(path=Path(cache.path), size=int(cache.size_gb * 1e9), model=model)


def absolute(path: str) -> str:
    """Return the absolute path, with `~` expanded."""
    return os.path.abspath(os.path.expanduser(path))


def resolve_cache(cache: Cache) -> Cache:
    """Return the cache section with an absolute path."""
    return cache if cache.path is None else cache.model_copy(update={"path": absolute(cache.path)})


def resolve_prices(prices: PricesValue) -> PricesValue:
    """Return the prices with an absolute path, if they are a file."""
    return absolute(prices) if isinstance(prices, str) and prices != GENAI else prices
