"""Import optional libraries that only some sources need."""

from importlib import import_module
from typing import Any

from peerloom.errors import SourceError


def import_extra(module: str, extra: str, subject: str) -> Any:
    """Import a module of an optional library.

    Args:
        module: the module's name.
        extra: Peerloom's extra that includes the library.
        subject: the feature or input that needs the library, for the error.

    Raises:
        SourceError: if it is not installed, with the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.split(".", maxsplit=1)[0]
        raise SourceError(
            f"{subject} needs {library}, which is not installed: pip install 'peerloom[{extra}]'"
        ) from error
