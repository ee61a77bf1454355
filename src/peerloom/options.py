"""Declare the options that a user may set, once, beside the code that reads them.

An options class is a frozen dataclass. The annotation of a field declares the type of a key, its bounds, and
how it may change when a run is resumed, as in `Annotated[Positive | None, FREE] = None`; the string below the
field documents it. `peerloom.config` builds these objects from keys and values. When Python code builds one,
the class checks the bounds itself.
"""

import math
import operator
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, cast, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from peerloom.errors import ConfigError


class OnResume(Enum):
    """How a key may change when a run is resumed."""

    SAME = "it decides what is in a row, or which row it is"
    MAY_GROW = "more of it adds rows; None is all there are"
    FREE = "it changes how the work is done"


SAME, MAY_GROW, FREE = OnResume

Count = Annotated[int, Ge(1)]
Whole = Annotated[int, Ge(0)]
NotNegative = Annotated[float, Ge(0), Lt(math.inf)]
Positive = Annotated[float, Gt(0), Lt(math.inf)]
FailedShare = Annotated[float, Gt(0), Le(1)]
Share = Annotated[float, Ge(0), Le(1)]
Part = Annotated[float, Gt(0), Lt(1)]

_BOUNDS: dict[type, tuple[str, Callable[[Any, Any], bool], str]] = {
    Ge: ("ge", operator.ge, "{:g} or more"),
    Gt: ("gt", operator.gt, "more than {:g}"),
    Le: ("le", operator.le, "{:g} or less"),
    Lt: ("lt", operator.lt, "less than {:g}"),
}


class Options:
    """Base of the options dataclasses; `section` is the configuration section that holds their keys.

    Neither the classes nor the configuration accept unknown keys or convert values.
    """

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}
    section: ClassVar[str] = "llm"

    def __post_init__(self) -> None:
        for name, rules in _rules(type(self)).items():
            value = getattr(self, name)
            for rule in rules if value is not None else ():
                if not _satisfies(rule, value):
                    key = f"{self.section}.{name}".lstrip(".")
                    raise ConfigError(f"{key} is {value!r}: it must be {_describe(rule)}")


@cache
def _rules(options: type) -> dict[str, list[Any]]:
    """Return the bounds and the tuples of allowed values of each field."""
    hints = get_type_hints(options, include_extras=True)
    return {name: rules for name, hint in hints.items() if (rules := list(_rules_in(hint)))}


def _rules_in(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield get_args(hint)
    elif get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        yield from _rules_in(kind)
        yield from (note for note in notes if type(note) in _BOUNDS)
    elif get_origin(hint) in (Union, UnionType):
        bounded = [rules for member in get_args(hint) if (rules := list(_rules_in(member)))]
        yield from bounded[0] if len(bounded) == 1 else ()


def _satisfies(rule: Any, value: Any) -> bool:
    if isinstance(rule, tuple):
        return value in rule
    name, compare, _ = _BOUNDS[type(rule)]
    return compare(value, getattr(rule, name))


def _describe(rule: Any) -> str:
    if isinstance(rule, tuple):
        return f"one of {', '.join(map(str, cast('tuple[Any, ...]', rule)))}"
    name, _, words = _BOUNDS[type(rule)]
    bound = getattr(rule, name)
    return "finite" if bound == math.inf else words.format(bound)
