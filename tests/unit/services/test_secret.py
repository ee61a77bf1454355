"""A secret stays one, whatever is done to what holds it."""

import dataclasses
import pickle

import orjson
import pytest

from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.openai import OpenAIService
from peerloom.services.secret import Secret

KEY = "sk-very-secret"


def test_it_shows_itself_only_on_demand() -> None:
    secret = Secret(f" {KEY}\n")
    spec = Endpoint(base_url="http://x/v1", api_key=secret)
    for text in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        repr(spec),
        str(dataclasses.asdict(spec)),
    ):
        assert KEY not in text
    with pytest.raises(TypeError):
        orjson.dumps({"key": secret})
    assert secret.reveal() == KEY
    assert pickle.loads(pickle.dumps(secret)) == secret != Secret("other")
    assert len({secret, Secret(KEY)}) == 1


def test_it_is_hidden_in_the_words_of_others() -> None:
    assert Secret(KEY).hide_in(f"bad key {KEY}!") == "bad key ***!"
    assert Secret("").hide_in("fine") == "fine"


def test_it_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Secret.from_env("OPENAI_API_KEY") is None
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    assert Secret.from_env("OPENAI_API_KEY") is None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert Secret.from_env("OPENAI_API_KEY") == Secret(KEY)
    assert KEY not in str(vars(OpenAIService()))
