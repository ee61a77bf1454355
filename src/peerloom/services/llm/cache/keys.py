"""Compute the cache keys of requests.

A key depends on everything that may change the reply: messages, sampling parameters, seed, schema, tools and
the order of keys in them, which models see; and the service's model, dialect and additional request fields.
It does not depend on the conversation, the calling agent or the address of the service.
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
_IGNORED = ("session", "role")
_FLOATS = ("temperature", "top_p")
_ENCODE_ERRORS = (TypeError, OverflowError, ValueError)

_encoder = msgspec.msgpack.Encoder()


class CacheKeys:
    """Computes the keys of one client's requests.

    Args:
        fleets: the services behind the client. If there are several, keys also depend on the role, since it
            may decide which service is called.
        more: additional properties that identify the model; JSON values.

    Raises:
        UncacheableService: if the properties of a service that affect its replies cannot be determined.
    """

    def __init__(self, fleets: Sequence[ReplicatedClientSpec], more: Mapping[str, Any]) -> None:
        services = [[fleet.model, _plain(fleet.backend_factory)] for fleet in fleets]
        self._by_role = len(fleets) > 1
        self._prefix = hashlib.blake2b(_FORMAT, digest_size=KEY_BYTES)
        self._prefix.update(_encoder.encode([services, _plain(more)]))

    def chat(self, request: ChatRequest) -> bytes | None:
        """Return the key of a request; None if its reply must not be cached.

        Replies sampled without a seed are not cached: equal requests should get different samples.
        """
        if request.seed is None and request.temperature != 0:
            return None
        return self._key(b"chat", request)

    def embed(self, request: EmbedRequest) -> bytes | None:
        """Return the key of an embeddings request, whose reply is deterministic; None if it has none."""
        return self._key(b"embed", request)

    def _key(self, kind: bytes, request: ChatRequest | EmbedRequest) -> bytes | None:
        # Defaults are left out, so that new fields in later releases do not change the keys.
        values = {
            field.name: float(value) if field.name in _FLOATS else value
            for field in msgspec.structs.fields(request)
            if field.name not in _IGNORED and (value := getattr(request, field.name)) != field.default
        }
        role = request.role if self._by_role else ""
        try:
            encoded = _encoder.encode([kind, role, values])
        except _ENCODE_ERRORS:
            return None
        digest = self._prefix.copy()
        digest.update(encoded)
        return digest.digest()


class UncacheableService(Exception):
    """The properties of a service that affect its replies cannot be determined."""


def _plain(value: Any) -> Any:
    """Return the properties of a service as JSON values, without addresses and keys."""
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
    raise UncacheableService(f"{type(value).__name__} does not say what decides its replies")
