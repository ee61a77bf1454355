"""Make the sections of services besides language models."""

from dataclasses import make_dataclass
from functools import cache
from typing import Annotated, Any, Literal, cast

from peerloom.options import SAME, Options
from peerloom.services.base import Service
from peerloom.services.kinds import find_service


@cache
def service_section(kind: str, key: str) -> type[Options]:
    """Return the section of a kind of service: its options and its `kind`, which is the value of `key`.

    Raises:
        ConfigError: if there is no such kind.
    """
    options = find_service(kind, key)
    tag = ("kind", Annotated[Literal[kind], SAME])  # pyright: ignore[reportInvalidTypeForm] - a value
    return make_dataclass(options.__name__, [tag], bases=(options,), frozen=True, kw_only=True)


def service_of(section: Any) -> Service:
    """Return the service that a section describes."""
    return cast("Service", section.service())
