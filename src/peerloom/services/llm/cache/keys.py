"""By what a reply is known again: the exact request, and the model that is asked.

Everything counts that may change the reply: messages, sampling, seed, schema, tools, the order of keys in
them, since models see it; and of the service the model, its dialect and what it adds to each request.
Conversation and agent do not count, nor the address: a model is the same wherever it is served.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any, cast

import msgspec

from peerloom.services.llm.base import ChatRequest, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.secret import Secret

KEY_BYTES = 20

_FORMAT = b"peerloom cache 1"
_ADDRESSES = ("session", "role")
_FLOATS = ("temperature", "top_p")
_NOT_PLAIN = (TypeError, OverflowError, ValueError)

_encoder = msgspec.msgpack.Encoder()


class Keys:
    """The keys of one client's requests.

    Args:
        fleets: the services behind the client. If it has several, an agent's role counts as well, since that
            may decide which of them is asked.
        more: whatever else says which model it is; JSON values.

    Raises:
        Unknown: if it cannot be told by what a service's replies are decided.
    """

    def __init__(self, fleets: Sequence[ReplicatedClientSpec], more: Mapping[str, Any]) -> None:
        said = [[fleet.model, _plain(fleet.dial)] for fleet in fleets]
        self._by_role = len(fleets) > 1
        self._begun = hashlib.blake2b(_FORMAT, digest_size=KEY_BYTES)
        self._begun.update(_encoder.encode([said, _plain(more)]))

    def chat(self, request: ChatRequest) -> bytes | None:
        """A request's key; None if its reply is not to be kept.

        That is so if it asks for a sample, without a seed: whoever asks that twice wants two.
        """
        if request.seed is None and request.temperature != 0:
            return None
        return self._key(b"chat", request)

    def embed(self, request: EmbedRequest) -> bytes | None:
        """As `chat`; vectors are always the same."""
        return self._key(b"embed", request)

    def _key(self, kind: bytes, request: ChatRequest | EmbedRequest) -> bytes | None:
        # Without defaults: a field that a later release adds leaves the keys as they are.
        said = {name: value for name, value, default in _values(request) if value != default}
        role = request.role if self._by_role else ""
        try:
            encoded = _encoder.encode([kind, role, said])
        except _NOT_PLAIN:
            return None
        digest = self._begun.copy()
        digest.update(encoded)
        return digest.digest()


class Unknown(Exception):
    """What decides this service's replies cannot be told."""


def _values(request: ChatRequest | EmbedRequest) -> list[tuple[str, Any, Any]]:
    """Name, value and default of each field that counts."""
    values: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(request):
        value = getattr(request, field.name)
        if field.name in _FLOATS and value is not None:
            value = float(value)
        if field.name not in _ADDRESSES:
            values.append((field.name, value, field.default))
    return values


def _plain(value: Any) -> Any:
    """A service's parts as plain values; addresses and keys are left out."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, Endpoint | Secret):
        return None
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value)
        return [[key, _plain(pairs[key])] for key in sorted(pairs)]
    if isinstance(value, Sequence):
        return [_plain(each) for each in cast("Sequence[Any]", value)]
    if isinstance(value, FunctionType | type):
        return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value):
        parts = [[each.name, _plain(getattr(value, each.name))] for each in fields(value)]
        return [_plain(type(value)), parts]
    raise Unknown(f"{type(value).__name__} does not say what decides its replies")
