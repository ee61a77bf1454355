"""Format the wait of a simulated refusal as HTTP headers, and parse it as a client would."""

import time
from email.utils import formatdate
from math import ceil
from typing import Literal, assert_never

RetryAfterAs = Literal["seconds", "none", "fraction", "date", "garbage", "year"]
"""`seconds`: whole ones, with `retry-after-ms` beside them. `none`: no header. `fraction`: seconds with
decimals. `date`: an HTTP date. `garbage`: words. `year`: the seconds of a year, for any wait."""

YEAR = 365 * 24 * 3600


def wait_headers(wait: float, stated_as: RetryAfterAs) -> bytes:
    """Return the header lines for a wait in seconds; times are rounded up."""
    match stated_as:
        case "seconds":
            lines = f"Retry-After: {ceil(wait)}\r\nretry-after-ms: {ceil(wait * 1000)}\r\n"
        case "none":
            lines = ""
        case "fraction":
            lines = f"Retry-After: {ceil(wait * 1000) / 1000:.3f}\r\n"
        case "date":
            lines = f"Retry-After: {formatdate(ceil(time.time() + wait), usegmt=True)}\r\n"
        case "garbage":
            lines = "Retry-After: soon\r\n"
        case "year":
            lines = f"Retry-After: {YEAR}\r\n"
        case _:
            assert_never(stated_as)
    return lines.encode()


def understood(wait: float, stated_as: RetryAfterAs) -> float | None:
    """Return the seconds that a client reads from those headers; None if there are none."""
    if stated_as in ("none", "garbage"):
        return None
    return float(YEAR) if stated_as == "year" else wait
