"""What a run may use, what that costs, and where replies are kept so that they need not be paid again."""

import os
from pathlib import Path
from typing import Annotated, Any

from peerloom.config.sections.base import Section
from peerloom.options import FREE, Positive
from peerloom.services.llm.cache.client import CacheSettings
from peerloom.services.llm.usage.prices import GENAI, Prices, read_prices

Given = str | dict[str, Any] | None
"""Prices: `genai`, a file, or what would be in it."""


class Cache(Section):
    """Replies, of earlier runs too: the exact request again, seed included, is not asked again."""

    path: Annotated[str | None, FREE] = None
    """The file, on a local disk of each node; by default there is no cache."""
    size_gb: Annotated[Positive, FREE] = 4.0
    """How large it may be, in GB; what was not used for longest is thrown away."""


def make_prices(given: Given) -> Prices:
    """Prices as the runtime has them.

    Raises:
        ConfigError: naming the file or key that is wrong, or the package that is missing.
    """
    return read_prices(given)


def make_cache(cache: Cache, model: dict[str, Any]) -> CacheSettings | None:
    """The cache as the runtime has it; `model` says which one it is."""
    if cache.path is None:
        return None
    return CacheSettings(path=Path(cache.path), size=int(cache.size_gb * 1e9), model=model)


def absolute(path: str) -> str:
    """A path as it is meant from anywhere."""
    return os.path.abspath(os.path.expanduser(path))


def settle_cache(cache: Cache) -> Cache:
    """The cache with its path absolute."""
    return cache if cache.path is None else cache.model_copy(update={"path": absolute(cache.path)})


def settle_prices(prices: Given) -> Given:
    """Prices with the file's path absolute."""
    return absolute(prices) if isinstance(prices, str) and prices != GENAI else prices
