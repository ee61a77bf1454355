"""Sign the requests to a run and its answers with the run's token, which is never sent.

A connection carries three lines: a nonce of the run, one request, and its answer, each signed together with
the line before it. So a request is valid once, for as long as its connection may take, and an answer belongs
to one request, since the client adds a nonce too.
"""

import hashlib
import hmac
from typing import Any, Literal

import orjson

from peerloom.services.secret import Secret

Kind = Literal["request", "answer"]

REFUSED = b"refused\n"
"""The answer to a request whose signature is wrong."""


class WrongSignature(Exception):
    """A line that was not signed with the token, or belongs to another connection."""


def seal(token: Secret, kind: Kind, before: bytes, content: Any) -> bytes:
    """Return the signed line with this content; `before` is the line before it."""
    body = orjson.dumps(content)
    return b"%s %s\n" % (_signature(token, kind, before, body), body)


def unseal(token: Secret, kind: Kind, before: bytes, line: bytes) -> Any:
    """Return the content of a signed line. Raises `WrongSignature`."""
    signature, _, body = line.removesuffix(b"\n").partition(b" ")
    if not hmac.compare_digest(signature, _signature(token, kind, before, body)):
        raise WrongSignature
    return orjson.loads(body)


def _signature(token: Secret, kind: Kind, before: bytes, body: bytes) -> bytes:
    signed = b"%s %d %s%s" % (kind.encode(), len(before), before, body)
    return hmac.new(token.reveal().encode(), signed, hashlib.sha256).hexdigest().encode()
