from pathlib import Path

import pytest

from peerloom.config import Config, check, compose
from peerloom.config.build import make_settings, resolve
from peerloom.config.resume import rule_of
from peerloom.config.sections.base import fields_of
from peerloom.errors import ConfigError
from peerloom.options import FREE
from peerloom.recipes import find
from peerloom.runtime.driver.run import prepare_client
from peerloom.runtime.settings import RunSettings
from peerloom.services.llm.cache.client import Cache
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.usage.budget import Budget
from peerloom.services.llm.usage.budget import Budget as RunBudget
from peerloom.services.llm.usage.prices import Price


def config_of(*overrides: str) -> Config:
    return resolve(check(compose("coral", overrides), find("coral").params))


def settings_of(*overrides: str) -> RunSettings:
    return make_settings(config_of(*overrides), ("a",))


def test_by_default_nothing_is_bounded_priced_or_kept() -> None:
    settings = settings_of()
    assert (settings.budget, settings.cache, settings.prices.find("m", "")) == (RunBudget(), None, None)


def test_a_budget() -> None:
    settings = settings_of("budget.usd=2.5", "budget.tokens=1000", "budget.calls=7", "budget.minutes=1")
    assert settings.budget == RunBudget(usd=2.5, tokens=1000, calls=7, minutes=1.0)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("budget.usd=0", "budget.usd=0: must be more than 0"),
        ("budget.tokens=1.5", "budget.tokens=1.5: must be a whole number"),
        ("budget.dollars=3", "there is no key 'budget.dollars'"),
        ("cache.size_gb=0", "cache.size_gb=0: must be more than 0"),
        ("cache=on", "cache=on: must be a group of keys"),
        ("prices=5", "prices=5: must be text"),
    ],
)
def test_what_is_wrong_is_said(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config_of(override)
    assert told in str(raised.value)


def test_prices_inline_and_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("prices={gpt-4.1: {prompt: 2, completion: 8, cached: 0.5}}")
    price = Price(prompt=2.0, completion=8.0, cached=0.5)
    assert settings.prices.find("gpt-4.1", "") == price
    (tmp_path / "mine.yaml").write_text("gpt-4.1: {prompt: 2, completion: 8, cached: 0.5}\n")
    monkeypatch.chdir(tmp_path)
    config = config_of("prices=mine.yaml")
    assert config.prices == str(tmp_path / "mine.yaml")
    monkeypatch.chdir("/")
    assert make_settings(config, ("a",)).prices.find("gpt-4.1", "") == price


def test_the_cache_knows_which_model_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = settings_of(
        "cache.path=c.db", "cache.size_gb=0.5", "llm=openai", "llm.model=m", "llm.timeout=5"
    ).cache
    assert cache is not None
    assert (cache.path, cache.size_gb, cache.lookup) == (str(tmp_path / "c.db"), 0.5, True)
    assert (cache.model["llm.kind"], cache.model["llm.model"]) == ("openai", "m")
    assert "llm.timeout" not in cache.model and "llm.base_url" not in cache.model


def test_all_of_it_may_change_when_a_run_is_resumed() -> None:
    for section in (Budget, Cache):
        assert {rule_of(section, name) for name in fields_of(section)} == {FREE}
    assert rule_of(Config, "prices") is FREE


def test_a_budget_in_dollars_needs_prices() -> None:
    settings = settings_of("budget.usd=1")
    spec = ReplicatedClientSpec(model="mine", replicas=("http://127.0.0.1:1/v1",), backend_factory=print)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"budget\.usd needs the price of mine"):
        prepare_client(spec, settings, metered=True)
    priced = settings_of("budget.usd=1", "prices={mine: {prompt: 1, completion: 1}}")
    (fleet,) = prepare_client(spec, priced, metered=True).fleets
    assert (fleet.price, fleet.limited) == (Price(prompt=1.0, completion=1.0), True)
