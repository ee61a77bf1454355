from typing import Any

import pytest

from peerloom.runtime.steps.recorded_calls import RecordedCalls, digest_of, save
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.task import SavedCall, Usage


def asked(text: str, seed: int = 0) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], seed=seed)


def saved(text: str, reply: str) -> SavedCall:
    call = save(digest_of(asked(text)), ChatReply(text=reply, usage=Usage(3, 2, 1, 1), model="m"))
    assert call is not None
    return call


def test_a_saved_call_answers_an_equal_request_in_full():
    calls = RecordedCalls([saved("a", "one")])

    assert calls.answer(digest_of(asked("a")), ChatReply) == ChatReply(
        text="one", usage=Usage(3, 2, 1, 1), model="m"
    )


def test_another_request_is_not_answered():
    calls = RecordedCalls([saved("a", "one")])

    assert calls.answer(digest_of(asked("b")), ChatReply) is None
    assert calls.answer(digest_of(asked("a", seed=1)), ChatReply) is None


def test_equal_requests_stay_as_many_answers():
    calls = RecordedCalls([saved("a", "one"), saved("b", "other"), saved("a", "two")])

    replies = [calls.answer(digest_of(asked("a")), ChatReply) for _ in range(3)]

    assert [reply and reply.text for reply in replies] == ["one", "two", None]


def test_the_order_of_different_requests_does_not_matter():
    calls = RecordedCalls([saved("a", "one"), saved("b", "two")])

    replies = [calls.answer(digest_of(asked(text)), ChatReply) for text in "ba"]

    assert [reply and reply.text for reply in replies] == ["two", "one"]


def test_a_request_that_cannot_be_encoded_is_neither_kept_nor_answered():
    strange = ChatRequest(messages=[{"role": "user", "content": object()}])

    assert save(digest_of(strange), ChatReply(text="x")) is None
    assert RecordedCalls([saved("a", "one")]).answer(digest_of(strange), ChatReply) is None


@pytest.mark.parametrize("message", [{"content": object()}, {"content": 2**70}, {"content": "\ud800"}])
def test_a_reply_that_cannot_be_encoded_is_not_kept(message: dict[str, Any]):
    assert save(digest_of(asked("a")), ChatReply(text="x", message=message)) is None
