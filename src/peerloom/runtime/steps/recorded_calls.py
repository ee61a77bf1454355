"""Finished calls of an unfinished turn: as they are kept, and how they answer again.

A saved call answers one request with the same digest, first come first served. So n equal requests of one
turn stay n answers, and calls that an agent makes side by side may be asked in another order.
"""

import hashlib
from collections import deque
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.task import SavedCall

DIGEST_BYTES = 16

_encoder = msgspec.msgpack.Encoder()
Reply = TypeVar("Reply", ChatReply, EmbedReply)

_NOT_PLAIN = (TypeError, OverflowError, ValueError)


def digest_of(request: ChatRequest | EmbedRequest) -> bytes:
    """The same for equal requests; empty for one that cannot be encoded.

    To be taken before the call: an agent may go on with the very list of messages that it has sent.
    """
    try:
        return hashlib.blake2b(_encoder.encode(request), digest_size=DIGEST_BYTES).digest()
    except _NOT_PLAIN:
        return b""


def save(digest: bytes, reply: ChatReply | EmbedReply) -> SavedCall | None:
    """A call as it is kept; None if request or reply hold what no JSON can."""
    try:
        return SavedCall(digest, _encoder.encode(reply)) if digest else None
    except _NOT_PLAIN:
        return None


class RecordedCalls:
    """The saved calls of one turn, each to be used once."""

    def __init__(self, calls: Iterable[SavedCall]) -> None:
        self._replies: dict[bytes, deque[bytes]] = {}
        for call in calls:
            self._replies.setdefault(call.digest, deque()).append(call.reply)

    def answer(self, digest: bytes, kind: type[Reply]) -> Reply | None:
        """The reply of that kind to a request with this digest, if there is one left."""
        replies = self._replies.get(digest)
        if replies is None:
            return None
        reply = replies.popleft()
        if not replies:
            del self._replies[digest]
        return msgspec.msgpack.decode(reply, type=kind)
