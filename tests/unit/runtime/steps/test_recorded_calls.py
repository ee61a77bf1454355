from typing import Any

import msgspec
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


def answer(calls: RecordedCalls, digest: bytes) -> ChatReply | None:
    reply = calls.pop(digest)
    return None if reply is None else msgspec.msgpack.decode(reply, type=ChatReply)


def test_a_saved_call_answers_an_equal_request_in_full():
    calls = RecordedCalls([saved("a", "one")])

    assert answer(calls, digest_of(asked("a"))) == ChatReply(text="one", usage=Usage(3, 2, 1, 1), model="m")


def test_another_request_is_not_answered():
    calls = RecordedCalls([saved("a", "one")])

    assert answer(calls, digest_of(asked("b"))) is None
    assert answer(calls, digest_of(asked("a", seed=1))) is None


def test_equal_requests_stay_as_many_answers():
    calls = RecordedCalls([saved("a", "one"), saved("b", "other"), saved("a", "two")])

    replies = [answer(calls, digest_of(asked("a"))) for _ in range(3)]

    assert [reply and reply.text for reply in replies] == ["one", "two", None]


def test_the_order_of_different_requests_does_not_matter():
    calls = RecordedCalls([saved("a", "one"), saved("b", "two")])

    replies = [answer(calls, digest_of(asked(text))) for text in "ba"]

    assert [reply and reply.text for reply in replies] == ["two", "one"]


def test_a_request_that_cannot_be_encoded_is_neither_kept_nor_answered():
    strange = ChatRequest(messages=[{"role": "user", "content": object()}])

    assert save(digest_of(strange), ChatReply(text="x")) is None
    assert RecordedCalls([saved("a", "one")]).pop(digest_of(strange)) is None


@pytest.mark.parametrize("message", [{"content": object()}, {"content": 2**70}, {"content": "\ud800"}])
def test_a_reply_that_cannot_be_encoded_is_not_kept(message: dict[str, Any]):
    assert save(digest_of(asked("a")), ChatReply(text="x", message=message)) is None


def test_services_and_members_of_a_turn_are_told_apart():
    request = {"text": "a"}
    digests = {digest_of(request), digest_of(request, "search"), digest_of(request, "search", "left")}
    assert len(digests | {digest_of(request, "search", "right"), digest_of(request, "", "left")}) == 5
