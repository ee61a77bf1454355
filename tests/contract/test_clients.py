"""The clients of other projects find in the simulated server what they expect of an OpenAI-compatible one."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from other_clients import ENVIRONMENTS, python_with
from provider import provider, stats

PROGRAMS = Path(__file__).parent / "clients"
WINDOW = 2

pytestmark = pytest.mark.slow


class Told(NamedTuple):
    """What a client's program reports of its steps, and what the limited server counted."""

    steps: dict[str, Any]
    counts: dict[str, Any]


@pytest.fixture(scope="module")
def free() -> Iterator[str]:
    with provider() as url:
        yield url


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def client(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def told(client: str, free: str) -> Told:
    python = python_with(client)
    with provider(limit_rpm=1, limit_window=WINDOW) as limited:
        ended = subprocess.run(
            [python, PROGRAMS / f"{client}_client.py", f"{free}/v1", f"{limited}/v1"],
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # else it asks the network for prices
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return Told(json.loads(ended.stdout.splitlines()[-1]), stats(limited))


def test_a_text_and_what_it_used(told: Told) -> None:
    chat = told.steps["chat"]
    prompt, completion, total = chat["usage"]
    assert chat["text"]
    assert chat["finish_reason"] == "stop"
    assert prompt > 0 and completion > 0 and total == prompt + completion


def test_structured_output(told: Told) -> None:
    verdict = told.steps["structured"]
    assert verdict.keys() == {"floats", "certainty", "reasons"}
    assert verdict["certainty"] in ("low", "high")


def test_a_stream_is_the_same_text_with_its_usage(told: Told, client: str) -> None:
    streamed = told.steps["streamed"]
    if client == "instructor":
        assert json.loads(streamed["text"]).keys() == {"floats", "certainty", "reasons"}
    else:
        chat = told.steps["chat"]
        assert streamed == {"text": chat["text"], "tokens": chat["usage"][2]}


def test_several_choices_and_a_json_object(told: Told, client: str) -> None:
    if client == "instructor":
        pytest.skip("it asks for one choice, by a schema")
    assert len(set(told.steps["several"])) == 3
    assert told.steps["several"][0] == told.steps["chat"]["text"]
    assert told.steps["json_object"].keys() == {"answer", "certainty"}


def test_models_completions_and_token_ids(told: Told, client: str) -> None:
    if client != "openai":
        pytest.skip("the others are built for chats")
    others = told.steps["others"]
    assert (others["model"], others["embedding"]) == ("simulated", 256)
    assert others["completion"]


def test_a_tool_is_called_and_its_result_is_taken(told: Told, client: str) -> None:
    called = told.steps["tool_call"]
    tool, argument = ("Verdict", "floats") if client == "instructor" else ("weather", "city")
    assert called["name"] == tool
    assert argument in called["arguments"]
    assert called["after"]


def test_a_refusal_is_understood_and_waited_out(told: Told) -> None:
    assert told.steps["refused"] == {"status": 429, "retry_after": str(WINDOW)}
    assert told.steps["retried"].get("text"), told.steps["retried"]
    assert told.counts["served"] == 2
    assert told.counts["refused"] <= 2, "it was tried again too early"
