"""Add up what the tries of a call have used."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from peerloom.errors import LLMError
from peerloom.services.llm.base import ChatReply, EmbedReply
from peerloom.task import Usage

Reply = TypeVar("Reply", ChatReply, EmbedReply)


@contextmanager
def charged(discarded: Usage | None) -> Generator[None]:
    """Add what earlier attempts have used to an error that ends the call."""
    try:
        yield
    except LLMError as error:
        error.usage = total(error.usage, discarded)
        raise


def replaced(reply: Reply, usage: Usage) -> Reply:
    """Return a reply with another usage."""
    return reply if usage is reply.usage else msgspec.structs.replace(reply, usage=usage)


def total(first: Usage | None, second: Usage | None) -> Usage | None:
    """Add what was used, as far as it is known."""
    if first is None or second is None:
        return first or second
    return first + second
