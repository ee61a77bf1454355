"""Finished calls of an unfinished turn: as they are kept, and how they answer again.

A saved call answers one request with the same digest, first come first served. So n equal requests of one
turn stay n answers, and calls that an agent makes side by side may be asked in another order.
"""

import hashlib
from collections import deque
from collections.abc import Iterable

import msgspec

from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.task import SavedCall

DIGEST_BYTES = 16

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ChatReply)


def save(request: ChatRequest, reply: ChatReply) -> SavedCall | None:
    """A call as it is kept; None if an agent has put something into it that no model can have seen."""
    digest = _digest(request)
    return SavedCall(digest, _encoder.encode(reply)) if digest else None


def _digest(request: ChatRequest) -> bytes:
    """The same for equal requests; empty for one that cannot be encoded."""
    try:
        return hashlib.blake2b(_encoder.encode(request), digest_size=DIGEST_BYTES).digest()
    except (TypeError, OverflowError, ValueError):
        return b""


class SavedCalls:
    """The saved calls of one turn, each to be used once."""

    def __init__(self, calls: Iterable[SavedCall]) -> None:
        self._replies: dict[bytes, deque[bytes]] = {}
        for call in calls:
            self._replies.setdefault(call.digest, deque()).append(call.reply)

    def answer(self, request: ChatRequest) -> ChatReply | None:
        """The reply to an equal request, if there is one left."""
        if not self._replies:
            return None
        digest = _digest(request)
        replies = self._replies.get(digest)
        if replies is None:
            return None
        reply = replies.popleft()
        if not replies:
            del self._replies[digest]
        return _decoder.decode(reply)
