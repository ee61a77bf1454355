"""The groups of keys that make a configuration: pydantic models, and options classes beside their readers.

Neither takes unknown keys or converts silently. Each key says what may become of it when a run is resumed:
`Annotated[Count, SAME]`. A key that holds a section of its own leaves that to the section's keys.
"""

import ast
from dataclasses import fields, is_dataclass, make_dataclass
from inspect import cleandoc, getsource
from itertools import pairwise
from textwrap import dedent
from typing import Annotated, Any, cast, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from peerloom.options import OnResume, Options


class Section(BaseModel):
    """A frozen group of keys; the text under a key says what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def is_section(kind: Any) -> bool:
    """Whether a type holds keys of its own."""
    return isinstance(kind, type) and (is_dataclass(cast("Any", kind)) or issubclass(kind, BaseModel))


def fields_of(section: Any) -> dict[str, FieldInfo]:
    """Return the keys of a section, with type, bounds and what is said of resuming."""
    if issubclass(section, BaseModel):
        return section.model_fields
    hints = get_type_hints(section, include_extras=True)
    return {each.name: FieldInfo.from_annotation(hints[each.name]) for each in fields(section)}


def texts_of(section: type[Any]) -> dict[str, str]:
    """Return the text below each field of a class, which says what it means."""
    (tree,) = ast.parse(dedent(getsource(section))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        line.target.id: cleandoc(text.value.value)
        for line, text in pairwise(tree.body)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }


def rule_among(notes: Any) -> OnResume | None:
    """Return what some notes of a field say of resuming."""
    return next((note for note in notes if isinstance(note, OnResume)), None)


def own_options(options: type[Options]) -> dict[str, Any]:
    """Return the annotated types of those fields that a user may set: they say what resuming does to them."""
    hints = get_type_hints(options, include_extras=True)
    return {name: hint for name, hint in hints.items() if rule_among(get_args(hint)) is not None}


def optional(options: type[Options]) -> type[Options]:
    """Return the same options with None, as suits the reader, for each that is left out."""
    keys = [
        (name, Annotated[hint | None, rule_among(get_args(hint))], None)
        for name, hint in own_options(options).items()
    ]
    return make_dataclass(options.__name__, keys, bases=(Options,), frozen=True, kw_only=True)
