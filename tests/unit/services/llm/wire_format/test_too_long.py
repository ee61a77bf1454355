"""Prompts that are too long for a model, as servers and gateways say it."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from peerloom.errors import ContextExceeded, LLMError
from peerloom.services.llm.wire_format.failures import failure_of, status_in


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            400,
            "This model's maximum context length is 8192 tokens. However, you requested 9000.",
        ),
        (400, "The decoder prompt (length 9000) is longer than the maximum model length of 8192."),
        (400, "The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000"),
        (413, "`inputs` must have less than 512 tokens. Given: 700"),
        (400, "the request exceeds the available context size, try increasing it"),
        (400, "the input length exceeds the context length"),
        (400, "The number of tokens to keep from the initial prompt is greater than the context length"),
        (500, "Prompt length (9000) exceeds maximum input length (8192)"),
        (400, "prompt is too long: 210000 tokens > 200000 maximum"),
        (400, "Input is too long for requested model."),
        (400, "The input token count (9000) exceeds the maximum number of tokens allowed (8192)."),
        (400, "too many tokens: total number of tokens in the prompt cannot exceed 4081"),
        (400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
        (400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"),
        (400, "litellm.BadRequestError: ContextWindowExceededError: VertexAIException"),
    ],
)
def test_a_prompt_that_is_too_long_in_the_words_of_many_servers(status: int, words: str) -> None:
    for body in (
        {"error": {"message": words}},
        {"message": words},
        {"detail": [{"msg": words}]},
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": json.dumps({"m": words})},
            }
        },
    ):
        assert isinstance(failure_of(status, {}, orjson.dumps(body), 0.0), ContextExceeded)


@pytest.mark.parametrize(
    "words",
    [
        "Too many tokens, please wait before trying again.",
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens",
        "Rate limit reached for tokens per min. Limit 30000, used 29000",
    ],
)
def test_other_words_about_tokens_are_no_long_prompt(words: str) -> None:
    assert not isinstance(
        failure_of(429, {}, orjson.dumps({"error": {"message": words}}), 0.0), ContextExceeded
    )


def openai_error(message: str, **fields: Any) -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}
    }


WHOLE = [
    pytest.param(case["status"], case["body"], id=case["server"])
    for case in map(orjson.loads, (Path(__file__).parent / "too_long.jsonl").read_bytes().splitlines())
]


@pytest.mark.parametrize(("status", "body"), WHOLE)
def test_whole_bodies_that_refuse_a_long_prompt(status: int, body: Any) -> None:
    assert isinstance(failure_of(status, {}, orjson.dumps(body), 0.0), ContextExceeded)


@pytest.mark.parametrize(
    "body",
    [
        # as Go writes it
        rb'{"error": "`inputs` tokens + `max_new_tokens` must be \u003c= 2048. Given: 1244"}',
        rb'{"error": "\u0060inputs\u0060 must have less than 512 tokens. Given: 700"}',
        rb'{"error": {"message": "The input (9 tokens) is longer than the model\\\\\'s context length"}}',
        rb'{"error": "You passed 9 input tokens. However, the model\u0027s context length is only 8 tokens"}',
    ],
)
def test_escaped_words_are_the_same_words(body: bytes) -> None:
    assert isinstance(failure_of(400, {}, body, 0.0), ContextExceeded)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            400,
            "too many tokens: max tokens must be less than or equal to 4096, the maximum output for this "
            "model",
        ),
        (400, "max_tokens must be at least 1, got 0."),
        (
            400,
            "max_tokens must be less than or equal to 16384, the maximum value for max_tokens for this model",
        ),
        (422, "Input validation error: `max_new_tokens` must be <= 192. Given: 1000"),
        (
            422,
            "Input validation error: Image size 30000000 bytes exceeds maximum allowed size of 20971520 "
            "bytes",
        ),
        (
            400,
            "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with maximum length "
            "40",
        ),
        (
            400,
            "Invalid 'user': string too long. Expected a string with maximum length 64, but got 70 instead.",
        ),
        (400, "Malformed input request: #/stop_sequences/0: expected maxLength: 100, actual: 200"),
        (400, "image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes"),
        (400, "metadata exceeds the maximum allowed length of 512 characters"),
        (
            400,
            "max_tokens=9000 cannot be greater than max_model_len=8192. Please request fewer output tokens.",
        ),
        (
            429,
            "Rate limit reached for model `llama` on tokens per minute (TPM): Limit 6000, Used 5034, "
            "Requested 9",
        ),
        (429, "This request would exceed your organization's rate limit of 80,000 input tokens per minute"),
        (429, "You exceeded your current quota, please check your plan and billing details."),
        (400, "The maximum tokens you requested exceeds the model limit of 4096."),
        (400, "invalid request"),
    ],
)
def test_other_refusals_are_no_long_prompt(status: int, words: str) -> None:
    for body in (openai_error(words), {"message": words}, {"error": words}):
        assert not isinstance(failure_of(status, {}, orjson.dumps(body), 0.0), ContextExceeded)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, openai_error("prompt is too long")),
        (
            422,
            {
                "detail": [
                    {
                        "loc": ["body"],
                        "msg": "field required",
                        "input": {"q": "Why is my prompt is too long?"},
                    }
                ]
            },
        ),
    ],
    ids=["denied", "the request repeated"],
)
def test_the_words_alone_are_not_enough(status: int, body: Any) -> None:
    assert isinstance(failure_of(status, {}, orjson.dumps(body), 0.0), LLMError)
    assert not isinstance(failure_of(status, {}, orjson.dumps(body), 0.0), ContextExceeded)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "no", "code": "429"}}, 429),
        ({"error": {"message": "no", "code": 500.0}}, 500),
        ({"error": "trying to keep the first 9000 tokens, but the context is 4096"}, 400),
        ({"message": "prompt is too long"}, 0),  # may be a reply's own words
        ({"error": {"code": "internal"}}, 0),
        ([], 0),
    ],
)
def test_errors_inside_a_200(body: Any, status: int) -> None:
    assert status_in(orjson.dumps(body)) == status
