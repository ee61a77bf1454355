"""Find the part of a program that cannot be pickled, which the error of pickle does not name."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

from ray import cloudpickle as _cloudpickle

from peerloom.runtime.program import Program

cloudpickle: Any = _cloudpickle

_DEPTH = 6
_ATOMS = (str, bytes, int, float, bool, type(None))


def find_unpicklable(program: Program) -> str:
    """Return the place of the first object that cannot be pickled, or an empty string.

    The place reads like Python, such as `agents['judge'].client._lock, a lock`.
    """
    parts: dict[str, object] = {f"agents[{role!r}]": agent for role, agent in program.agents.items()}
    parts |= {"the workflow": program.workflow, "check_row": program.check_row}
    for path, part in parts.items():
        if not _is_picklable(part):
            place, found = _innermost(part, path, _DEPTH)
            return f"{place}, a {type(found).__name__}"
    return ""


def _innermost(value: object, path: str, depth: int) -> tuple[str, object]:
    for inner, step in _parts(value) if depth else ():
        if not isinstance(inner, _ATOMS) and not _is_picklable(inner):
            return _innermost(inner, path + step, depth - 1)
    return path, value


def _parts(value: object) -> Iterator[tuple[object, str]]:
    """Yield the parts of an object, each with its path."""
    if inspect.ismethod(value):
        yield value.__self__, ".__self__"
    elif inspect.isfunction(value):
        used = inspect.getclosurevars(cast("Callable[..., Any]", value))
        yield from ((inner, f" -> {name}") for name, inner in {**used.nonlocals, **used.globals}.items())
    elif isinstance(value, dict):
        yield from ((inner, f"[{key!r}]") for key, inner in cast("dict[Any, object]", value).items())
    elif isinstance(value, list | tuple | set | frozenset):
        items = cast("list[object]", value)
        yield from ((inner, f"[{number}]") for number, inner in enumerate(items))
    else:
        yield from ((inner, f".{name}") for name, inner in getattr(value, "__dict__", {}).items())


def _is_picklable(value: object) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:  # `__reduce__` may raise any
        return False
    return True
