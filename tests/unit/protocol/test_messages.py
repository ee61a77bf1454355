import pytest
from protocol_helpers import ANN, FEED, STORE, item, task, view

from peerloom.errors import CodecError
from peerloom.protocol.messages import (
    Ack,
    CommittedQuery,
    CommittedReply,
    Deliver,
    Delivered,
    DoneQuery,
    DoneReply,
    Drain,
    Exhausted,
    Message,
    Prepare,
    Report,
    Suspect,
    ViewCommit,
    decode,
    encode,
)

MESSAGES: list[Message] = [
    Deliver(3, ANN, 7, [item(1, hop=2), item(2)]),
    Delivered(3, 7, False),
    Ack(3, STORE, [task(1)]),
    Prepare(view(4)),
    Report(4, FEED, [item(1).header], [item(2).header], [task(1), task(2)], fresh=True),
    CommittedQuery(4, [task(1)], everything=True),
    CommittedReply(4, STORE, [task(1)], [task(2)], b"past"),
    ViewCommit(4, [task(1)], [task(2)], [task(3)], [task(4)], [b"past"]),
    Suspect(4, ANN, STORE),
    Exhausted(4, FEED),
    Drain(),
    DoneQuery(4, ANN, [task(1), task(2)]),
    DoneReply([task(2)]),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_comes_back_as_it_was(message: Message):
    assert decode(encode(message)) == message


def test_headers_come_back_as_headers():
    again = decode(encode(MESSAGES[0]))
    assert isinstance(again, Deliver)
    assert again.items[0].header.age == (1, 2)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\x63", encode(Drain()) + b"more"])
def test_anything_else_is_refused(data: bytes):
    with pytest.raises(CodecError, match="not a protocol message"):
        decode(data)
