"""A key-value store that each task has for itself: the smallest stateful service, and an example of one."""

from dataclasses import dataclass
from typing import Any

from peerloom.services.leased.resource import Rejected, Resource
from peerloom.services.leased.service import StatefulOptions


class KeyValueStore(Resource):
    """The values of one task. The spec has the first ones, or is None.

    Requests are `{"get": key}`, `{"put": key, "value": value}`, `{"add": key, "value": number}`, `{"delete":
    key}` and `{"list": prefix}`. The reply is the value, the new value, the deleted value, or the keys.
    """

    async def start(self) -> None:
        """Copy the first values."""
        self._values: dict[str, Any] = dict(self.spec or {})

    async def call(self, request: Any) -> Any:
        """Execute a request."""
        match request:
            case {"get": str(key)}:
                return self._values.get(key)
            case {"put": str(key), "value": value}:
                self._values[key] = value
                return value
            case {"add": str(key), "value": int() | float() as number}:
                self._values[key] = self._values.get(key, 0) + number
                return self._values[key]
            case {"delete": str(key)}:
                return self._values.pop(key, None)
            case {"list": str(prefix)}:
                return sorted(key for key in self._values if key.startswith(prefix))
            case _:
                raise Rejected(f"a store cannot do {request!r}: get, put, add, delete or list")


@dataclass(frozen=True, kw_only=True)
class KeyValue(StatefulOptions):
    """A key-value store for each task."""

    resource = KeyValueStore


SERVICE = KeyValue
