"""Record the finished calls of an unfinished turn, and replay them.

A recorded call answers one request with the same digest. So equal requests of a turn get an answer each, and
concurrent calls may be repeated in any order.
"""

import hashlib
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from peerloom.task import SavedCall

DIGEST_BYTES = 16

_encoder = msgspec.msgpack.Encoder()

_NOT_PLAIN = (TypeError, OverflowError, ValueError)


def digest_of(request: Any, service: str = "", path: str = "") -> bytes:
    """Return the digest of a call, or empty bytes if its request cannot be encoded.

    Must be computed before the request is sent: the agent may change its list of messages afterwards.

    Args:
        request: the request, with the role that makes it.
        service: the name of the service; empty for the language model.
        path: the member of the turn that makes the call; empty if the turn has only one.
    """
    try:
        encoded = _encoder.encode(request)
    except _NOT_PLAIN:
        return b""
    if service or path:
        encoded = _encoder.encode((service, path, encoded))
    return hashlib.blake2b(encoded, digest_size=DIGEST_BYTES).digest()


def save(digest: bytes, reply: Any) -> SavedCall | None:
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
            if call.step is None:
                self._replies.setdefault(call.digest, deque()).append(call.reply)

    def pop(self, digest: bytes) -> bytes | None:
        """Return and remove a recorded reply to a request with this digest, or None."""
        replies = self._replies.get(digest)
        if replies is None:
            return None
        reply = replies.popleft()
        if not replies:
            del self._replies[digest]
        return reply
