"""Add up the usage of the attempts of a call."""

from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from peerloom.errors import LLMError
from peerloom.services.llm.base import Reply
from peerloom.task import Usage


@contextmanager
def charged(discarded: Usage | None) -> Generator[None]:
    """Add the usage of earlier attempts to an error raised in the block."""
    try:
        yield
    except LLMError as error:
        error.usage = total(error.usage, discarded)
        raise


def replaced(reply: Reply, usage: Usage) -> Reply:
    """Return the reply with another usage."""
    return reply if usage is reply.usage else msgspec.structs.replace(reply, usage=usage)


def total(first: Usage | None, second: Usage | None) -> Usage | None:
    """Return the sum of two usages, each None if unknown."""
    if first is None or second is None:
        return first or second
    return first + second
