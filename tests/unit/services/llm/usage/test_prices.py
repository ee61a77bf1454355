import json
import sys
from pathlib import Path
from typing import Any

import pytest

from peerloom.errors import ConfigError
from peerloom.services.llm.usage.prices import FREE, UNKNOWN, Price, read_prices, require_price
from peerloom.task import Usage

HERE = "http://127.0.0.1:8000/v1"
OPENAI = "https://api.openai.com/v1"


def test_a_price_is_for_a_million_tokens() -> None:
    price = Price(prompt=1.0, completion=4.0, cached=0.1)
    assert price.cost(Usage(1_000_000, 500_000, 0, 1)) == 3.0
    assert price.cost(Usage(1_000_000, 0, 400_000, 1)) == pytest.approx(0.64)
    assert Price(prompt=1.0, completion=4.0).cost(Usage(1_000_000, 0, 400_000, 1)) == 1.0
    assert FREE.cost(Usage(1_000_000, 1_000_000, 0, 1)) == 0.0


def test_a_models_own_name_comes_first_then_the_earliest_pattern() -> None:
    prices = read_prices(
        {
            "big-*": {"prompt": 1, "completion": 1},
            "*": {"prompt": 2, "completion": 2},
            "big-one": {"prompt": 3, "completion": 3},
        }
    )
    found = [prices.find(model, HERE) for model in ("big-one", "big-two", "small")]
    assert [price.prompt for price in found if price is not None] == [3.0, 1.0, 2.0]
    assert UNKNOWN.find("big-one", HERE) is None


@pytest.mark.parametrize("name", ["prices.yaml", "prices.json"])
def test_a_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(json.dumps({"m": {"prompt": 0.5, "completion": 2, "cached": 0.05}}))
    assert read_prices(str(file)).find("m", HERE) == Price(prompt=0.5, completion=2.0, cached=0.05)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "m: {prompt: 1, completion: -1}",
            "prices.yaml: m.completion=-1: must be US dollars for a million tokens",
        ),
        ("m: {prompt: cheap, completion: 1}", "m.prompt=cheap: must be US dollars"),
        ("m: {prompt: true, completion: 1}", "m.prompt=True: must be US dollars"),
        ("m: {prompt: .inf, completion: 1}", "m.prompt=inf: must be US dollars"),
        ("m: {promt: 1, completion: 1}", "m.promt: there is no such key. Did you mean 'prompt'?"),
        ("m: {prompt: 1}", "m.completion is needed, as in {prompt:"),
        ("m: 3", "m: must be a group of keys"),
        ("- m", "must be a mapping from models to prices"),
        ("{", "is neither YAML nor JSON"),
    ],
)
def test_a_wrong_file_is_named_with_the_key(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as raised:
        read_prices(str(file))
    assert told in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-file\.yaml: there is no such file"):
        read_prices(str(tmp_path / "no-file.yaml"))


def test_a_file_without_an_end() -> None:
    with pytest.raises(
        ConfigError, match="prices=/dev/zero: cannot be read: /dev/zero is larger than 64 MiB"
    ):
        read_prices("/dev/zero")


def test_a_wrong_price_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"prices\.m\.cached=-1: must be"):
        read_prices({"m": {"prompt": 1, "completion": 1, "cached": -1}})


def test_prices_of_providers_are_known_by_their_address() -> None:
    pytest.importorskip("genai_prices")
    prices = read_prices("genai")
    price = prices.find("gpt-4o-mini", OPENAI)
    assert price is not None
    assert 0 < (price.cached or 0) < price.prompt < price.completion
    assert prices.find("gpt-4o-mini", HERE) is None  # who knows whose server that is
    assert prices.find("no-such-model", OPENAI) is None
    stepped = prices.find("gemini-2.5-pro", "https://generativelanguage.googleapis.com")
    assert stepped is not None and stepped.prompt > 0


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("genai_prices", "genai_prices.data_snapshot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'peerloom\[prices\]'"):
        read_prices("genai")


def test_a_budget_in_dollars_needs_the_price_of_each_model() -> None:
    models: list[tuple[str, Any]] = [("a", FREE), ("b", None)]
    with pytest.raises(ConfigError, match=r"budget\.usd needs the price of b, which is not known: give it"):
        require_price(models)
    require_price([("a", FREE)])
