"""Build the responses of the simulated server: status, headers, body and flaw."""

from typing import NamedTuple

import orjson

from peerloom.services.llm.simulated import bodies
from peerloom.services.llm.simulated.behavior import Fault, SimulatedBehavior, SimulatedReply
from peerloom.services.llm.simulated.server.http1 import Flaw
from peerloom.services.llm.simulated.waits import RetryAfterAs, wait_headers

_CLOSED = 444  # logged for a connection closed by a fault


class Response(NamedTuple):
    """A response to send.

    A `delay` of None means never. `logged` is the status in the call log; `counted` is whether the reply's
    tokens are counted there.
    """

    status: int
    payload: bytes
    delay: float | None = 0.0
    headers: bytes = b""
    flaw: Flaw | None = None
    logged: int = 0
    counted: bool = False


def failure(status: int, message: str, code: str) -> Response:
    """Return an error response in OpenAI's format."""
    payload = orjson.dumps(bodies.error(message, code))
    return Response(status, payload, logged=status)


def too_many(message: str, wait: float, stated_as: RetryAfterAs) -> Response:
    """Return the refusal by a limit that resets in `wait` seconds."""
    refusal = failure(429, message, "rate_limit_exceeded")
    return refusal._replace(headers=wait_headers(wait, stated_as))


def with_fault(
    fault: Fault, reply: SimulatedReply, payload: bytes, behavior: SimulatedBehavior, draw: int
) -> Response:
    """Return the response to a request with a fault; `draw` determines its variant."""
    complete = Response(200, payload, reply.seconds, logged=200, counted=True)
    match fault:
        case "429":
            response = too_many("simulated rate limit", behavior.retry_after, behavior.retry_after_as)
        case "5xx":
            response = failure(500, "simulated failure", "server_error")
        case "hang":
            response = complete._replace(delay=None)
        case "garbage":
            response = complete._replace(payload=payload[: len(payload) // 2])
        case "half_closed":
            flaw = Flaw("head" if draw & 1 else "start")
            response = complete._replace(flaw=flaw, logged=_CLOSED, counted=False)
        case "cut":
            response = complete._replace(flaw=Flaw("body"), logged=_CLOSED, counted=False)
        case "slow":
            response = complete._replace(flaw=Flaw(trickle=behavior.slow_seconds))
        case "content_type":
            response = complete._replace(payload=bodies.PAGE, flaw=Flaw(html=True), counted=False)
        case _:
            response = complete
    return response
