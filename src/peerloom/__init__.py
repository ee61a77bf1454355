"""Generate synthetic training data with many LLM agents, peer to peer.

    import peerloom

    result = peerloom.run("coral", source="questions.jsonl", limit=20)
    for row in result:
        print(row["messages"])

The public API is the names in `__init__.pyi`. A module is imported when a name of it is first used, since
some are slow to import.
"""

import ast
import importlib
import pkgutil
from typing import Any

_MODULES = {
    name.name: str(statement.module)
    for statement in ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"").body
    if isinstance(statement, ast.ImportFrom)
    for name in statement.names
}

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("peerloom")
    if name not in _MODULES:
        raise AttributeError(f"module 'peerloom' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
