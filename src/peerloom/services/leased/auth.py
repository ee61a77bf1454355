"""Authenticate the requests to a process of a stateful service.

The key of the run's service is in the environment of its processes, and in the specs of its clients. A
request presents a token derived from the key, the task, and the fencing token of its copy, so a token that
leaks opens the leases of that one copy only, and no longer than until a newer copy has been there.
"""

import hmac

from peerloom.protocol.leases.messages import Stamp
from peerloom.task import TaskId

CONTROL = "control"


def token(key: bytes, id: TaskId, stamp: Stamp) -> str:
    """Return the token of a copy of a task."""
    return _sign(key, f"{id}/{stamp.attempt}/{stamp.hop}")


def control_token(key: bytes) -> str:
    """Return the token of the driver, which passes on the messages of feeders."""
    return _sign(key, CONTROL)


def matches(presented: str, expected: str) -> bool:
    """Return whether a presented token is the expected one, in constant time."""
    return hmac.compare_digest(presented.encode(), expected.encode())


def _sign(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()
