"""Libraries that only some sources need, imported when they are."""

from importlib import import_module
from typing import Any

from peerloom.errors import SourceError


def need(module: str, extra: str, what: str) -> Any:
    """A module of an optional library.

    Args:
        module: its name.
        extra: Peerloom's extra that brings it.
        what: what it is needed for, as the subject of a sentence.

    Raises:
        SourceError: if it is not installed, naming the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.split(".", maxsplit=1)[0]
        raise SourceError(
            f"{what} needs {library}, which is not installed: pip install 'peerloom[{extra}]'"
        ) from error
