"""Import optional libraries that only some sources need."""

from importlib import import_module
from typing import Any

from peerloom.errors import SourceError


def import_extra(module: str, extra: str, subject: str) -> Any:
    """Import a module of an optional library."""
    try:
        return import_module(module)
    except ImportError as error:
        library = module.split(".", maxsplit=1)[0]
        raise SourceError(
            f"{subject} needs {library}, which is not installed: pip install 'peerloom[{extra}]'"
        ) from error
