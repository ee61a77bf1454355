"""Refuse secrets in configurations: they are named by environment variable, never written to disk.

A value that looks like a key is refused before any message could repeat it, and before `run.yaml` is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from peerloom.errors import ConfigError
from peerloom.services.secret import looks_secret, names_secret
from peerloom.source.storage.urls import holds_credentials


def refuse_secrets(config: Mapping[str, Any]) -> None:
    """Raise an error if a configuration holds a secret.

    Raises:
        ConfigError: naming the key, never the value.
    """
    for key, value in _strings(config, ""):
        named = names_secret(key.rpartition(".")[2])
        if value and (named or looks_secret(value) or holds_credentials(value)):
            raise ConfigError(
                f"{key} holds what looks like a secret, and a configuration is written to disk: "
                f"{_instead(key)}"
            )


def _instead(key: str) -> str:
    if key.startswith("source."):
        return "leave it out: the storage's own library finds credentials in the environment or its own files"
    return (
        "set it in an environment variable, e.g. OPENAI_API_KEY, "
        "and name another variable by llm.api_key_env=NAME"
    )


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in cast("Mapping[str, Any]", value).items():
            yield from _strings(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, Sequence):
        for inner in cast("Sequence[Any]", value):
            yield from _strings(inner, key)
