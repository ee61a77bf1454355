"""Define the base class of the resources of a stateful service, for its author to implement."""

from typing import Any


class Rejected(Exception):
    """Raised by `Resource.call` for a request that it refuses; the state is unchanged."""


class Resource:
    """A resource that one task holds at a time, such as a sandbox. It lives in a process of its service.

    Its state must follow from its spec and the requests it has executed: after the death of a process, a new
    resource executes the recorded requests again.

    Args:
        spec: the JSON value with which the task has acquired it.
        options: the options of the service.
    """

    def __init__(self, spec: Any, **options: Any) -> None:
        self.spec = spec
        self.options = options

    async def start(self) -> None:
        """Build the state; called once, before the first request."""

    async def call(self, request: Any) -> Any:
        """Execute a request, and return the reply, a JSON value. Calls do not overlap.

        May be cancelled, when the task has moved on without waiting; `close` follows then.

        Raises:
            Rejected: if the request is refused, and nothing has changed. After any other exception the
                resource is closed, and a new one takes its place.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Release everything. Called once, also after a `start` or `call` that has failed."""
