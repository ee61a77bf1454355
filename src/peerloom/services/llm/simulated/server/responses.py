"""What a client sees of a call to the simulated server: status, headers, body, and what is wrong with it."""

from typing import NamedTuple

import orjson

from peerloom.services.llm.simulated import bodies
from peerloom.services.llm.simulated.behavior import Fault, SimulatedBehavior, SimulatedReply
from peerloom.services.llm.simulated.server.http1 import Flaw
from peerloom.services.llm.simulated.waits import RetryAfterAs, wait_headers

_BROKEN_OFF = 444


class Response(NamedTuple):
    """An answer to be sent.

    `delay` None is never. `logged` is its status in the log of calls; `kept` whether the reply's tokens are
    counted there.
    """

    status: int
    payload: bytes
    delay: float | None = 0.0
    headers: bytes = b""
    flaw: Flaw | None = None
    logged: int = 0
    kept: bool = False


def failure(status: int, message: str, code: str) -> Response:
    """An error as OpenAI words it."""
    payload = orjson.dumps(bodies.error(message, code))
    return Response(status, payload, logged=status)


def too_many(message: str, wait: float, stated_as: RetryAfterAs) -> Response:
    """A refusal for a limit that lasts `wait` seconds more."""
    refusal = failure(429, message, "rate_limit_exceeded")
    return refusal._replace(headers=wait_headers(wait, stated_as))


def spoilt(
    fault: Fault, made: SimulatedReply, payload: bytes, laws: SimulatedBehavior, draw: int
) -> Response:
    """What becomes of a reply that meets a fault; `draw` decides what the fault leaves open."""
    whole = Response(200, payload, made.seconds, logged=200, kept=True)
    match fault:
        case "429":
            response = too_many("simulated rate limit", laws.retry_after, laws.retry_after_as)
        case "5xx":
            response = failure(500, "simulated failure", "server_error")
        case "hang":
            response = whole._replace(delay=None)
        case "garbage":
            response = whole._replace(payload=payload[: len(payload) // 2])
        case "half_closed":
            flaw = Flaw("head" if draw & 1 else "start")
            response = whole._replace(flaw=flaw, logged=_BROKEN_OFF, kept=False)
        case "cut":
            response = whole._replace(flaw=Flaw("body"), logged=_BROKEN_OFF, kept=False)
        case "slow":
            response = whole._replace(flaw=Flaw(trickle=laws.slow_seconds))
        case "content_type":
            response = whole._replace(payload=bodies.PAGE, flaw=Flaw(html=True), kept=False)
        case _:
            response = whole
    return response
