"""Build the HTTP responses of the simulated model, with the faults of real servers and networks."""

import time
from email.utils import formatdate
from math import ceil
from typing import Literal, NamedTuple, assert_never

import orjson

from peerloom.services.llm.simulated.behavior import Fault, RetryAfterAs, SimulatedBehavior, SimulatedReply

PAGE = b"""<!DOCTYPE html>
<html><head><title>One moment</title></head><body><h1>We will be back shortly</h1></body></html>
"""
"""The page that a gateway sends instead of a response, with status 200."""
YEAR = 365 * 24 * 3600

Headers = tuple[tuple[bytes, bytes], ...]


class Response(NamedTuple):
    """A response to send.

    `delay` is the time until the response is due, None for never. `closed` is the place at which the
    connection is closed: before the first byte, or in the middle of the head or of the body. `trickle` is the
    time from the first to the last piece, in seconds.
    """

    status: int
    body: bytes
    headers: Headers = ()
    delay: float | None = 0.0
    content_type: bytes = b"application/json"
    closed: Literal["", "start", "head", "body"] = ""
    trickle: float = 0.0


def unknown_model(model: str | None) -> Response:
    """Return the error for a model that does not exist."""
    if model is None:
        return failure(400, "model is missing", "invalid_request_error")
    return failure(
        404, f"there is no model {model!r}; GET /v1/models lists those there are", "model_not_found"
    )


def failure(status: int, message: str, code: str) -> Response:
    """Return an error response in OpenAI's format."""
    return Response(
        status, orjson.dumps({"error": {"message": message, "type": "simulated_error", "code": code}})
    )


def too_many(message: str, wait: float, stated_as: RetryAfterAs) -> Response:
    """Return the refusal by a limit that resets in `wait` seconds."""
    refusal = failure(429, f"simulated rate limit{message}", "rate_limit_exceeded")
    return refusal._replace(headers=wait_headers(wait, stated_as))


def with_fault(
    fault: Fault, reply: SimulatedReply, payload: bytes, behavior: SimulatedBehavior, draw: int
) -> Response:
    """Return the response to a request with a fault; `draw` determines its variant."""
    response = Response(200, payload, delay=reply.seconds)
    match fault:
        case "" | "truncation":
            pass
        case "429":
            response = too_many("", behavior.retry_after, behavior.retry_after_as)
        case "5xx":
            response = failure(500, "simulated failure", "server_error")
        case "hang":
            response = response._replace(delay=None)
        case "garbage":
            response = response._replace(body=payload[: len(payload) // 2])
        case "half_closed":
            response = response._replace(closed="head" if draw & 1 else "start")
        case "cut":
            response = response._replace(closed="body")
        case "slow":
            response = response._replace(trickle=behavior.slow_seconds)
        case "content_type":
            response = response._replace(body=PAGE, content_type=b"text/html")
    return response


def wait_headers(wait: float, stated_as: RetryAfterAs) -> Headers:
    """Return the headers for a wait in seconds; times are rounded up."""
    match stated_as:
        case "seconds":
            millis = (b"retry-after-ms", b"%d" % ceil(wait * 1000))
            return ((b"Retry-After", b"%d" % ceil(wait)), millis)
        case "none":
            return ()
        case "fraction":
            value = f"{ceil(wait * 1000) / 1000:.3f}"
        case "date":
            value = formatdate(ceil(time.time() + wait), usegmt=True)
        case "garbage":
            value = "soon"
        case "year":
            value = str(YEAR)
        case _:
            assert_never(stated_as)
    return ((b"Retry-After", value.encode()),)
