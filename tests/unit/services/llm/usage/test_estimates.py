"""What a call may take is reserved before it is made, and learnt from what calls have taken."""

import pytest

from peerloom.services.llm.base import ChatRequest, EmbedRequest
from peerloom.services.llm.usage.estimates import DEFAULT_OUTPUT, Estimates
from peerloom.services.llm.usage.prices import Price
from peerloom.task import Usage


def request(words: int = 100, role: str = "a", max_tokens: int | None = None) -> ChatRequest:
    return ChatRequest(
        messages=[{"role": "user", "content": "word " * words}], role=role, max_tokens=max_tokens
    )


def test_while_nothing_is_known_all_that_is_asked_for_is_reserved() -> None:
    estimates = Estimates(None)
    assert estimates.need(request(max_tokens=900)).tokens == pytest.approx(900 + 130, abs=5)
    assert estimates.need(request()).tokens == pytest.approx(DEFAULT_OUTPUT + 130, abs=5)
    assert estimates.need(request())[:2] == (1.0, 1.0)


def test_each_agents_replies_tell_what_its_next_one_may_take() -> None:
    estimates = Estimates(None)
    for number in range(400):
        estimates.learn(request(role="long"), Usage(130, 1_000 + number % 100, 0, 1))
        estimates.learn(request(role="short"), Usage(130, number % 20, 0, 1))
    longest, short = estimates.need(request(role="long")), estimates.need(request(role="short"))
    assert 1_080 <= longest.tokens - 130 <= 1_105
    assert 15 <= short.tokens - 130 <= 25
    assert estimates.need(request(role="long", max_tokens=50)).tokens == pytest.approx(180, abs=5)


@pytest.mark.parametrize("really", [60, 400])
def test_prompts_are_measured_by_what_the_server_has_counted(really: int) -> None:
    estimates = Estimates(None)
    for _ in range(200):
        estimates.learn(request(max_tokens=1), Usage(really, 1, 0, 1))
    assert estimates.need(request(max_tokens=1)).tokens == pytest.approx(really + 1, rel=0.02)


def test_absurd_counts_do_not_lead_far_astray() -> None:
    estimates = Estimates(None)
    for _ in range(500):
        estimates.learn(request(max_tokens=1), Usage(10**9, 1, 0, 1))
    assert estimates.need(request(max_tokens=1)).tokens < 4.1 * 135


def test_images_take_tokens_too() -> None:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    seen = ChatRequest(messages=[{"role": "user", "content": parts}], max_tokens=1)
    assert Estimates(None).need(seen).tokens > 800


def test_dollars_are_of_prompt_and_reply_at_their_price() -> None:
    need = Estimates(Price(prompt=1.0, completion=10.0)).need(request(max_tokens=1_000))
    assert need.usd == pytest.approx((130 + 10_000) / 1e6, rel=0.01)


def test_vectors_cost_their_texts() -> None:
    need = Estimates(None).need(EmbedRequest(texts=("word " * 100, "word " * 100)))
    assert need.tokens == pytest.approx(252, abs=4)
