"""Look up the prices of tokens in the user's file or mapping, or in the package `genai-prices`.

    gpt-5-mini: {prompt: 0.25, completion: 2.0, cached: 0.025}
    "llama-3.3-*": {prompt: 0.6, completion: 0.8}

Prices are in US dollars per million tokens. An exact name takes precedence over a pattern, and an earlier
pattern over a later one.
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import yaml

from peerloom.errors import ConfigError
from peerloom.lookup.small_file import read_small_file
from peerloom.task import Usage

GENAI = "genai"
"""The value of `prices` that selects the package `genai-prices` instead of a file."""

_MILLION = 1e6
_KEYS = ("prompt", "completion", "cached")
_EXAMPLE = "{prompt: 0.25, completion: 2.0}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a model, in US dollars per million tokens.

    Args:
        prompt: the price of prompt tokens.
        completion: the price of completion tokens.
        cached: the price of prompt tokens in the server's cache; None if it is the same.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def cost(self, usage: Usage) -> float:
        """Return the cost of a usage in US dollars."""
        cached = min(usage.cached, usage.prompt)
        fresh = usage.prompt - cached
        per_cached = self.prompt if self.cached is None else self.cached
        return (fresh * self.prompt + cached * per_cached + usage.completion * self.completion) / _MILLION


FREE = Price(prompt=0.0, completion=0.0)
"""The price of a local model."""


@dataclass(frozen=True, slots=True)
class Prices:
    """The known prices.

    Args:
        by_name: the prices by model name, or by pattern with `*`, `?` and `[...]`.
        genai: look up other models in `genai-prices`.
    """

    by_name: Mapping[str, Price]
    genai: bool = False

    def find(self, model: str, base_url: str) -> Price | None:
        """Return the price of a model at an address; None if it is unknown."""
        exact = self.by_name.get(model)
        if exact is not None:
            return exact
        for name, price in self.by_name.items():
            if fnmatchcase(model, name):
                return price
        return _genai_price(model, base_url) if self.genai else None


UNKNOWN = Prices({})


def read_prices(given: str | Mapping[str, Any] | None) -> Prices:
    """Return the prices given by the user: `genai`, the path of a YAML or JSON file, or its content.

    Raises:
        ConfigError: if a key is wrong or a package is missing; the error names the file and key.
    """
    if given is None:
        return UNKNOWN
    if given == GENAI:
        _genai()
        return Prices({}, genai=True)
    if isinstance(given, str):
        return Prices(_checked(_loaded(Path(given)), f"{given}: "))
    return Prices(_checked(given, "prices."))


def require_price(models: Sequence[tuple[str, Price | None]]) -> None:
    """Raise an error if the price of a model is unknown, as a budget in dollars needs it.

    Args:
        models: the name and price of each model.

    Raises:
        ConfigError: if a price is unknown; the error says how to give it.
    """
    for model, price in models:
        if price is None:
            raise ConfigError(
                f"budget.usd needs the price of {model}, which is not known: give it, in US dollars for a "
                f"million tokens, by prices={{'{model}': {_EXAMPLE}}} or in a file by prices=FILE.yaml; "
                "prices=genai knows those of public providers; a model of your own may cost 0"
            )


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        loaded: Any = yaml.safe_load(read_small_file(path))  # JSON is YAML too
    except FileNotFoundError as error:
        raise ConfigError(f"prices={path}: there is no such file; prices=genai needs none") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte, or no UTF-8
        raise ConfigError(f"prices={path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must be a mapping from models to prices, as in 'gpt-5-mini: {_EXAMPLE}'")
    return cast("dict[str, Any]", loaded)


def _checked(given: Mapping[str, Any], where: str) -> dict[str, Price]:
    return {str(name): _price(entry, f"{where}{name}") for name, entry in given.items()}


def _price(entry: Any, where: str) -> Price:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: must be a group of keys, as in {_EXAMPLE}")
    values = cast("Mapping[str, Any]", entry)
    for key, value in values.items():
        if key not in _KEYS:
            close = get_close_matches(str(key), _KEYS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(_KEYS)}."
            raise ConfigError(f"{where}.{key}: there is no such key.{hint}")
        if value is None and key == "cached":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"{where}.{key}={value}: must be US dollars for a million tokens, 0 or more")
    for key in ("prompt", "completion"):
        if key not in values:
            raise ConfigError(f"{where}.{key} is needed, as in {_EXAMPLE}")
    cached = values.get("cached")
    return Price(
        prompt=float(values["prompt"]),
        completion=float(values["completion"]),
        cached=None if cached is None else float(cached),
    )


def _genai() -> Any:
    try:
        return importlib.import_module("genai_prices.data_snapshot")
    except ImportError as error:
        raise ConfigError("prices=genai needs a package: pip install 'peerloom[prices]'") from error


def _genai_price(model: str, base_url: str) -> Price | None:
    """Return the price from `genai-prices`; the address identifies the provider, the name alone does not."""
    try:
        _, found = _genai().get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    rates = found.get_prices(datetime.now(tz=UTC))
    prompt, completion, cached = (
        _rate(getattr(rates, name, None)) for name in ("input_mtok", "output_mtok", "cache_read_mtok")
    )
    if prompt is None:
        return None
    return Price(prompt=prompt, completion=completion or 0.0, cached=cached)


def _rate(rate: Any) -> float | None:
    """Return a rate in dollars; of a tiered rate the first step, which covers all but very long prompts."""
    if rate is None:
        return None
    return float(getattr(rate, "base", rate))
