"""Hold secrets such as API keys, and replace them in text that is logged or written.

A secret is pickled in memory to the members of a run. It never appears in `repr`, formatted text,
`dataclasses.asdict` or JSON. While a `Secret` exists, `mask` and `mask_json` replace its value.
"""

import json
import os
import re
from functools import cache
from typing import Any, Self, cast
from urllib.parse import quote
from weakref import WeakValueDictionary

import orjson

MASK = "***"
SHORTEST = 8
"""The shortest secret that is masked, in characters; a shorter one would match ordinary words."""

_LOOKS_SECRET = re.compile(
    r"\b(?:sk|pk|gsk|hf|xai|nvapi|ghp|glpat)[-_][\w-]{16,}|\bAIza[\w-]{30,}|\bAKIA[A-Z0-9]{12,}"
    r"|://[^/@\s]*:[^/@\s]*@"
)
_NAMED_SECRET = re.compile(r"(?:^|_)(?:api_?key|secret|password|authorization|token)$", re.IGNORECASE)
_PLACEHOLDERS = frozenset(
    {
        *("anything", "dummy-key", "dummykey", "lm-studio", "no-api-key", "no-key-required", "not-needed"),
        *("not-required", "not-used", "not_needed", "notneeded", "placeholder", "sk-no-key-required"),
    }
)


class Secret:
    """A secret value, readable only by `reveal()`. Surrounding whitespace is dropped."""

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str) -> None:
        self._value = value.strip()
        _known[id(self)] = self
        _needles.cache_clear()
        _raw_needles.cache_clear()

    @classmethod
    def from_env(cls, name: str) -> Self | None:
        """Return the secret in environment variable `name`, or None if it is unset or empty."""
        value = os.environ.get(name, "").strip()
        return cls(value) if value else None

    def reveal(self) -> str:
        """Return the value. Call this only where the value is used."""
        return self._value

    def __reduce__(self) -> "tuple[type[Secret], tuple[str]]":
        return Secret, (self._value,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"


_known: WeakValueDictionary[int, Secret] = WeakValueDictionary()  # by id, since equal secrets may coexist


def known() -> tuple[Secret, ...]:
    """Return the distinct secrets of this process."""
    return tuple(set(_known.values()))


def names_secret(name: str) -> bool:
    """Return whether a value of this name is a secret."""
    return _NAMED_SECRET.search(name.replace("-", "_")) is not None


def looks_secret(text: str) -> bool:
    """Return whether a text seems to hold a key, or a password in a URL."""
    return _LOOKS_SECRET.search(text) is not None


def masked_literals(text: str) -> str:
    """Replace everything in a text that seems to be a key."""
    return _LOOKS_SECRET.sub(MASK, text)


def mask(text: str) -> str:
    """Replace this process's secrets in a text."""
    for needle in _needles():
        if needle in text:
            text = text.replace(needle, MASK)
    return text


def mask_bytes(raw: bytes) -> bytes:
    """Replace this process's secrets in bytes."""
    for needle in _raw_needles():
        if needle in raw:
            raw = raw.replace(needle, MASK.encode())
    return raw


def mask_json(raw: bytes) -> bytes:
    """Replace this process's secrets in encoded JSON, keeping it valid JSON.

    A secret that is also a number, or begins within an escape, is replaced in strings only.
    """
    masked = mask_bytes(raw)
    if masked is raw:
        return raw
    try:
        json.loads(masked)
    except (ValueError, RecursionError):
        try:
            return json.dumps(masked_value(json.loads(raw)), separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            pass  # it was not JSON before
    return masked


def masked_value(value: Any) -> Any:
    """Return a copy of a JSON value with this process's secrets replaced in its strings and keys."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [masked_value(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {mask(key): masked_value(each) for key, each in items}
    return value


@cache
def _needles() -> tuple[str, ...]:
    """Return each secret as plain text, in JSON, in JSON within JSON, and in a URL; longest first."""
    found: set[str] = set()
    for secret in known():
        value = secret.reveal()
        if len(value) >= SHORTEST and value.lower() not in _PLACEHOLDERS:
            once = _in_json(value)
            found |= {value, once, _in_json(once), value.replace("/", "\\/"), quote(value, safe="")}
    return tuple(sorted(found, key=lambda needle: (-len(needle), needle)))


@cache
def _raw_needles() -> tuple[bytes, ...]:
    return tuple(needle.encode(errors="replace") for needle in _needles())


def _in_json(value: str) -> str:
    return orjson.dumps(value.encode(errors="replace").decode()).decode()[1:-1]
