"""Record the finished calls of an unfinished turn, and replay them.

A recorded call answers one request with the same digest. So equal requests of a turn get an answer each, and
concurrent calls may be repeated in any order.
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
    """Return the digest of a request, or empty bytes if it cannot be encoded.

    Must be called before the request is sent: the agent may change its list of messages afterwards.
    """
    try:
        return hashlib.blake2b(_encoder.encode(request), digest_size=DIGEST_BYTES).digest()
    except _NOT_PLAIN:
        return b""


def save(digest: bytes, reply: ChatReply | EmbedReply) -> SavedCall | None:
    """Return a record of a call, or None if the request or reply cannot be encoded."""
    try:
        return SavedCall(digest, _encoder.encode(reply)) if digest else None
    except _NOT_PLAIN:
        return None


class RecordedCalls:
    """The recorded calls of one turn, each to be replayed once."""

    def __init__(self, calls: Iterable[SavedCall]) -> None:
        self._replies: dict[bytes, deque[bytes]] = {}
        for call in calls:
            self._replies.setdefault(call.digest, deque()).append(call.reply)

    def answer(self, digest: bytes, kind: type[Reply]) -> Reply | None:
        """Return and remove a recorded reply to a request with this digest, or None."""
        replies = self._replies.get(digest)
        if replies is None:
            return None
        reply = replies.popleft()
        if not replies:
            del self._replies[digest]
        return msgspec.msgpack.decode(reply, type=kind)
