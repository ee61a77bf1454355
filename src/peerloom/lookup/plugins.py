"""Find an implementation by the name in a configuration: built in, installed, or at an import path.

A new one is one file: nothing lists the implementations.
"""

import os
import pkgutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from peerloom.errors import ConfigError
from peerloom.lookup.nearest import did_you_mean


@dataclass(frozen=True)
class Plugins:
    """The implementations of one interface.

    Args:
        key: the key of the configuration that names one.
        group: the entry point group in which installed packages declare theirs.
        package: the package whose modules are the built-in ones, each under its module's name.
        attribute: the name under which such a module declares it.
    """

    key: str
    group: str
    package: str
    attribute: str

    def built_in(self) -> list[str]:
        """Return the names of the built-in implementations."""
        modules = pkgutil.iter_modules(import_module(self.package).__path__)
        return [module.name for module in modules if self._declared(module.name) is not None]

    def names(self) -> list[str]:
        """Return the names of the built-in implementations, then of those that installed packages declare."""
        built_in = self.built_in()
        return [*built_in, *sorted(entry_points(group=self.group).names - set(built_in))]

    def find(self, name: str) -> Any:
        """Return the implementation with a name, or at an import path.

        Raises:
            ConfigError: if there is none, with the nearest name, or it cannot be imported.
        """
        if ":" in name:
            return self._import(name, name)
        found = self._declared(name)
        if found is not None:
            return found
        for point in entry_points(group=self.group, name=name):
            return self._import(name, point.value)
        raise self.unknown(name, self.names())

    def unknown(self, name: str, known: Iterable[str]) -> ConfigError:
        """Return the error for a name that is not among the known ones."""
        known = list(known)
        noun = self.key.rpartition(".")[2]
        return ConfigError(
            f"{self.key}={name}: there is no such {noun}.{did_you_mean(name, known, all_of=known)}"
        )

    def _declared(self, name: str) -> Any:
        module = f"{self.package}.{name}"
        if not name.isidentifier() or find_spec(module) is None:
            return None
        return getattr(import_module(module), self.attribute, None)

    def _import(self, name: str, path: str) -> Any:
        try:
            return import_path(path)
        except (ImportError, AttributeError, ValueError, SyntaxError) as error:
            why = f"{error}. An import path is package.module:Name or ./file.py:Name"
            raise ConfigError(f"{self.key}={name} cannot be imported: {why}") from error
        except Exception as error:  # of the code in the module
            why = f"it raises {type(error).__name__}: {error}"
            raise ConfigError(f"{self.key}={name} cannot be imported: {why}") from error


def import_path(path: str) -> Any:
    """Import `package.module:Name` or `/path/file.py:Name`; raise any error of the import."""
    module, _, attribute = path.rpartition(":")
    loaded = _import_file(module) if module.endswith(".py") else import_module(module)
    return getattr(loaded, attribute)


def absolute_file(name: str) -> str:
    """Return the import path of a file with its absolute path, and any other name unchanged."""
    file, colon, attribute = name.rpartition(":")
    return f"{os.path.abspath(os.path.expanduser(file))}{colon}{attribute}" if file.endswith(".py") else name


def _import_file(file: str) -> Any:
    """Import a file under its own name, so that other processes of a run can import it too."""
    path = os.path.realpath(os.path.expanduser(file))
    if not os.path.isfile(path):
        raise ImportError(f"there is no file {file}")
    folder, name = os.path.split(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = import_module(name.removesuffix(".py"))
    if os.path.realpath(module.__file__ or "") != path:
        raise ImportError(f"a module {module.__name__} is imported already, from {module.__file__}")
    return module
