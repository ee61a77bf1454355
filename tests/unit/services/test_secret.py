"""A secret stays one, whatever is done to what holds it."""

import dataclasses
import json
import pickle
from urllib.parse import quote

import orjson
import pytest

from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.secret import Secret, known, mask, mask_bytes, mask_json

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


AWKWARD = 'pass/"word\\ä+1'


@pytest.mark.parametrize("key", [KEY, AWKWARD])
def test_it_is_masked_in_the_words_of_others(key: str) -> None:
    secret = Secret(key)
    assert mask(f"bad key {key}!") == "bad key ***!"
    assert mask(f"https://x/?key={quote(key, safe='')}") == "https://x/?key=***"
    inside = orjson.dumps({"said": key, "arguments": orjson.dumps({key: 1}).decode(), "more": ["fine", 1.5]})
    assert orjson.loads(mask_json(inside)) == {"said": "***", "arguments": '{"***":1}', "more": ["fine", 1.5]}
    assert mask_bytes(b"<" + key.encode() + b">") == b"<***>"
    del secret


@pytest.mark.parametrize("key", ["", "x", "none", "EMPTY", "sk-1234", "lm-studio", "not-needed"])
def test_what_is_no_secret_is_not_masked(key: str) -> None:
    secret = Secret(key)
    text = f"fine {key} words"
    assert mask(text) == text
    assert mask_json(text.encode()) == text.encode()
    assert secret in known()


def test_masked_json_stays_json() -> None:
    held = Secret("12345678"), Secret("nabcdefgh")
    line = '{"id":12345678,"big":123456789012345678901234,"said":"12345678","more":"x\\nabcdefgh"}'
    assert json.loads(mask_json(line.encode())) == {
        "id": 12345678,
        "big": 123456789012345678901234,
        "said": "***",
        "more": "x\nabcdefgh",
    }
    assert mask_json(b"no JSON: 12345678") == b"no JSON: ***"
    del held


def test_it_is_known_for_as_long_as_it_exists_and_in_each_process_that_has_it() -> None:
    secret = Secret("a-secret-that-ends")
    copy = pickle.loads(pickle.dumps(secret))
    del secret
    assert mask("a-secret-that-ends") == "***"
    del copy
    assert "a-secret-that-ends" not in [each.reveal() for each in known()]


def test_secrets_of_an_address_are_known() -> None:
    endpoint = Endpoint(base_url="http://x/v1?api-key=0123456789abc&api-version=2024-10-21")
    held = endpoint.secrets
    assert held == (Secret("0123456789abc"),)


def test_it_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Secret.from_env("OPENAI_API_KEY") is None
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    assert Secret.from_env("OPENAI_API_KEY") is None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert Secret.from_env("OPENAI_API_KEY") == Secret(KEY)
    assert KEY not in str(vars(OpenAIService()))
