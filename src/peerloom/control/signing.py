"""Proves that a request comes from who knows the run's token, and its answer from the run.

The token itself never travels. A request is signed over method, path, time, a nonce and body; it counts
for some seconds and once. The answer is signed over the nonce it answers, so it cannot be another's.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping

from peerloom.services.secret import Secret

TIME, NONCE, SIGNATURE = "X-Peerloom-Time", "X-Peerloom-Nonce", "X-Peerloom-Signature"
WINDOW_SECONDS = 30.0  # how far the clocks of two hosts may be apart

Clock = Callable[[], float]


class Refused(Exception):
    """A request that is not to be answered; whoever sent it is not told why."""


def sign_request(
    token: Secret, method: str, path: str, body: bytes, clock: Clock = time.time
) -> dict[str, str]:
    """The headers that make a request count."""
    at, nonce = f"{clock():.3f}", secrets.token_hex(16)
    return {TIME: at, NONCE: nonce, SIGNATURE: _signature(token, b"request", method, path, at, nonce, body)}


def sign_answer(token: Secret, nonce: str, status: int, body: bytes) -> str:
    """The signature of the answer to the request with this nonce."""
    return _signature(token, b"answer", nonce, str(status), body)


def answers(token: Secret, nonce: str, status: int, body: bytes, signature: str) -> bool:
    """Whether an answer comes from the run, to this very request."""
    return hmac.compare_digest(sign_answer(token, nonce, status, body).encode(), signature.encode())


class Guard:
    """Lets signed requests in, each once. `clock` gives seconds since the epoch, and is there for tests."""

    def __init__(self, token: Secret, clock: Clock = time.time) -> None:
        self._token = token
        self._clock = clock
        self._seen: dict[str, float] = {}  # nonces, and until when they could be used again

    def admit(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> str:
        """The nonce of a request that counts.

        Raises:
            Refused: if it is not signed with the token, is too old or too new, or was here before.
        """
        at, nonce = headers.get(TIME, ""), headers.get(NONCE, "")
        given = headers.get(SIGNATURE, "")
        expected = _signature(self._token, b"request", method, path, at, nonce, body)
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            raise Refused
        # What is signed was made by `sign_request`, so from here on it is well-formed.
        now, then = self._clock(), float(at)
        self._seen = {known: until for known, until in self._seen.items() if until >= now}
        if abs(now - then) > WINDOW_SECONDS or nonce in self._seen:
            raise Refused
        self._seen[nonce] = then + WINDOW_SECONDS
        return nonce


def _signature(token: Secret, kind: bytes, *parts: str | bytes) -> str:
    mac = hmac.new(token.reveal().encode(), kind, hashlib.sha256)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        mac.update(b"\n%d:" % len(data))  # so that no two different requests read alike
        mac.update(data)
    return mac.hexdigest()
