"""A value that must never be seen: an API key on its way from the environment to a request header.

It is pickled to the peers in memory, and shows itself nowhere else: not in `repr`, formatted text,
`dataclasses.asdict` or JSON.
"""

import os
from typing import Self


class Secret:
    """Holds a secret; only `reveal()` gives it away. Surrounding whitespace is dropped."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value.strip()

    @classmethod
    def from_env(cls, name: str) -> Self | None:
        """The secret in environment variable `name`, or None if it is unset or empty."""
        value = os.environ.get(name, "").strip()
        return cls(value) if value else None

    def reveal(self) -> str:
        """The value itself: call it only where the value is used."""
        return self._value

    def hide_in(self, text: str) -> str:
        """`text` with this secret blotted out, for words that come back from a server."""
        return text.replace(self._value, "***") if self._value else text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')"
