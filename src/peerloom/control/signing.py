"""Sign and verify the requests to a run and its answers, with the run's token.

The token itself is never sent. The signature of a request covers method, path, time, a nonce and body; a
request is valid once, for some seconds. The signature of an answer covers the request's nonce, so it cannot
belong to another request.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping

from peerloom.services.secret import Secret

TIME, NONCE, SIGNATURE = "X-Peerloom-Time", "X-Peerloom-Nonce", "X-Peerloom-Signature"
WINDOW_SECONDS = 30.0  # the maximum difference between the clocks of two hosts

Clock = Callable[[], float]


class Refused(Exception):
    """A request that is refused, without a reason to the client."""


def sign_request(
    token: Secret, method: str, path: str, body: bytes, clock: Clock = time.time
) -> dict[str, str]:
    """Return the headers that sign a request."""
    at, nonce = f"{clock():.3f}", secrets.token_hex(16)
    return {TIME: at, NONCE: nonce, SIGNATURE: _signature(token, b"request", method, path, at, nonce, body)}


def sign_answer(token: Secret, nonce: str, status: int, body: bytes) -> str:
    """Return the signature of the answer to the request with this nonce."""
    return _signature(token, b"answer", nonce, str(status), body)


def is_signed_answer(token: Secret, nonce: str, status: int, body: bytes, signature: str) -> bool:
    """Return whether an answer comes from the run, and belongs to the request with this nonce."""
    return hmac.compare_digest(sign_answer(token, nonce, status, body).encode(), signature.encode())


class RequestVerifier:
    """Verifier of signed requests, which admits each once. Tests replace `clock`, which returns Unix time."""

    def __init__(self, token: Secret, clock: Clock = time.time) -> None:
        self._token = token
        self._clock = clock
        self._expiries: dict[str, float] = {}  # of the nonces that were used

    def admit(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> str:
        """Return the nonce of a valid request.

        Raises:
            Refused: if it is not signed with the token, is too old or too new, or was admitted before.
        """
        at, nonce = headers.get(TIME, ""), headers.get(NONCE, "")
        given = headers.get(SIGNATURE, "")
        expected = _signature(self._token, b"request", method, path, at, nonce, body)
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            raise Refused
        # A signed request comes from `sign_request`, so from here on it is well-formed.
        now, sent = self._clock(), float(at)
        self._expiries = {known: expiry for known, expiry in self._expiries.items() if expiry >= now}
        if abs(now - sent) > WINDOW_SECONDS or nonce in self._expiries:
            raise Refused
        self._expiries[nonce] = sent + WINDOW_SECONDS
        return nonce


def _signature(token: Secret, kind: bytes, *parts: str | bytes) -> str:
    mac = hmac.new(token.reveal().encode(), kind, hashlib.sha256)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        mac.update(b"\n%d:" % len(data))  # so that no two different requests have the same bytes
        mac.update(data)
    return mac.hexdigest()
