"""Random damage to refusals in the words of many servers: each is one of the errors a row can record."""

import random
from typing import Any

import orjson
import pytest
from test_fuzzed_replies import DIALECTS, body_of, damaged, fuzz

from peerloom.errors import LLMError
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.hosted.backend import HttpBackend
from peerloom.services.llm.http.base import HttpResponse
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.retry import Retryable

HELLO = ChatRequest(messages=[{"role": "user", "content": "Hello?"}])
REFUSALS: tuple[dict[str, Any], ...] = (
    {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": "context_length"}},
    {"error": {"message": "slow down", "code": 429, "metadata": {"raw": '{"a": 1}', "provider_name": "P"}}},
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "r"},
    {
        "error": {
            "code": 429,
            "message": "Quota exceeded",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"},
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{"quotaId": "PerDay"}],
                },
            ],
        }
    },
    {"detail": [{"type": "missing", "loc": ["body", 0], "msg": "field required", "input": {"a": [1]}}]},
    {"object": "error", "message": "maximum context length", "type": "BadRequestError", "code": "400"},
    {"error": "model not found", "error_type": "validation"},
)
STATUSES = (200, 200, 204, 301, 307, *range(400, 430), 499, 500, 501, 502, 503, 504, 520, 529, 599, 999)
WAITS = (
    b"1",
    b"-1",
    b"0.5",
    b"1e400",
    b"nan",
    b"Wed, 21 Oct 2026 07:28:00 GMT",
    b"\xff\xfe",
    b"",
    b"9" * 400,
)


DEEP = b'{"error": {"code": 400, "details": %s}}' % (b"[" * 300 + b"]" * 300)


class Refusing:
    """A carrier whose server answers the same to every request."""

    def __init__(self, answer: HttpResponse) -> None:
        self.answer = answer

    async def send(self, method: str, url: Any, body: bytes, headers: Any) -> HttpResponse:
        return self.answer

    async def close(self) -> None: ...


def refusal(chance: random.Random) -> HttpResponse:
    body = body_of(chance, damaged(chance, chance.choice(REFUSALS)))
    if chance.random() < 0.05:
        body = chance.choice(
            (b"", b"<html>502</html>", b"[" * 5000, b'{"error":' * 300, DEEP, b"\xff\xfe\x00{")
        )
    fields = [(b"Content-Type", chance.choice((b"application/json", b"text/html", b"\xff", b"")))]
    for name in (b"Retry-After", b"retry-after-ms", b"x-ratelimit-reset-requests", b"Location"):
        if chance.random() < 0.3:
            fields.append((name, chance.choice(WAITS)))
    return HttpResponse(chance.choice(STATUSES), tuple(fields), body)


async def ask(chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the error that one damaged refusal becomes."""
    answer = refusal(chance)
    monkeypatch.setattr(Endpoint, "open_transport", lambda *_: Refusing(answer))
    dialect, _ = DIALECTS[chance.choice(list(DIALECTS))]
    backend = HttpBackend(Endpoint(base_url="http://model.example/v1"), dialect, "m")
    try:
        await backend.chat(HELLO, 1)
    except (Retryable, LLMError) as error:
        assert len(orjson.dumps(str(error))) < 2000  # a row can hold it
        wait = error.retry_after if isinstance(error, Retryable) else None
        assert wait is None or 0 <= wait < float("inf"), wait
        return type(error).__name__
    return "a reply"


async def test_damaged_refusals_become_defined_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await fuzz(13, 1500, follow=lambda chance: ask(chance, monkeypatch))
    assert sum(seen.values()) == 1500
    assert {"Retryable", "LLMDenied", "LLMRejected", "ContextExceeded"} <= set(seen), seen


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_damaged_refusals_for_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await fuzz(1, 1_000_000, 10.0, lambda chance: ask(chance, monkeypatch))
    assert sum(seen.values()) > 1000
