"""Inspect the keys of options classes, which are the sections of the configuration.

Each key declares how it may change when a run is resumed, as in `Annotated[Count, SAME]`; for a key that
holds a section, the keys of that section declare it.
"""

import ast
from dataclasses import Field, field, fields, make_dataclass
from inspect import cleandoc, getsource
from itertools import pairwise
from textwrap import dedent
from typing import Annotated, Any, get_args, get_type_hints

from pydantic.fields import FieldInfo

from peerloom.options import OnResume, Options


def is_section(kind: Any) -> bool:
    """Return whether a type is a section with keys."""
    return isinstance(kind, type) and issubclass(kind, Options)


def fields_of(section: Any) -> dict[str, FieldInfo]:
    """Return the keys of a section, with their types, bounds and resume rules."""
    hints = get_type_hints(section, include_extras=True)
    return {each.name: FieldInfo.from_annotation(hints[each.name]) for each in fields(section)}


def field_docs(section: type[Any]) -> dict[str, str]:
    """Return the documentation of each field of a class, the string below it."""
    (tree,) = ast.parse(dedent(getsource(section))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        line.target.id: cleandoc(text.value.value)
        for line, text in pairwise(tree.body)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }


def resume_rule(metadata: Any) -> OnResume | None:
    """Return the resume rule in the metadata of a field, if there is one."""
    return next((note for note in metadata if isinstance(note, OnResume)), None)


def own_options(options: type[Options]) -> dict[str, Any]:
    """Return the annotated types of the fields that a user may set, which are those with a resume rule."""
    hints = get_type_hints(options, include_extras=True)
    return {name: hint for name, hint in hints.items() if resume_rule(get_args(hint)) is not None}


def optional(options: type[Options]) -> type[Options]:
    """Return an options class with the same fields, which may all be None: the reader's default applies."""
    keys = [
        (name, Annotated[hint | None, resume_rule(get_args(hint))], None)
        for name, hint in own_options(options).items()
    ]
    return make_dataclass(options.__name__, keys, bases=(Options,), frozen=True, kw_only=True)


def redeclared(declared: "Field[Any]") -> Any:
    """Return a field with the same default, to declare it in another class."""
    return field(default=declared.default, default_factory=declared.default_factory)  # pyright: ignore
