"""What pydantic found wrong, in the words of whoever typed it: one line for each key.

A line names the key with its dots, what was given and what is allowed, and the nearest right key.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast, get_args, get_origin

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from peerloom.config.llm import LLM_GROUPS
from peerloom.config.nearest import did_you_mean

_ALLOWED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
    "literal_error": "{expected}",
    "greater_than_equal": "{ge:g} or more",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "{le:g} or less",
    "less_than": "less than {lt:g}",
}
_MEMBERS_OF_UNIONS = ("str", "int", "float", "bool")
_LONGEST = 80


def explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line for each key of the configuration `root` that is wrong."""
    unknown: list[str] = []
    wrong: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        key = _dotted(detail["loc"])
        if detail["type"] == "extra_forbidden":
            kind = str(detail["loc"][1]) if key.startswith("llm.") else ""
            unknown += [_unknown(leaf, given, root, kind) for leaf, given in _leaves(key, detail["input"])]
        else:
            wrong.setdefault(key, []).append(detail)
    return unknown + [_wrong(key, details, root) for key, details in wrong.items()]


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a model, with `<name>` where the user chooses the name."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        sections = dict.fromkeys(_sections(field.annotation))
        below = f"{key}.<name>." if get_origin(field.annotation) is dict else f"{key}."
        for section in sections:
            yield from known_keys(section, below)
        if key == "llm" or not sections:
            yield key


def given(value: Any) -> str:
    """A value as one would type it, shortened."""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _dotted(loc: tuple[int | str, ...]) -> str:
    """The key as the user types it: without pydantic's own marks for members of a union."""
    parts: list[str] = []
    for place, part in enumerate(loc):
        if isinstance(part, int) or part in _MEMBERS_OF_UNIONS or "[" in part:
            break
        if not (place == 1 and loc[0] == "llm" and part in LLM_GROUPS):
            parts.append(part)
    return ".".join(parts)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def _unknown(key: str, value: Any, root: type[BaseModel], kind: str) -> str:
    name = key.split(".")[1] if key.startswith("roles.") else "<name>"
    known = dict.fromkeys(each.replace("<name>", name) for each in known_keys(root))
    here = f"llm={kind} has" if kind in LLM_GROUPS else "there is"
    line = f"{key}={given(value)}: {here} no key {key!r}."
    if kind in LLM_GROUPS:
        own = LLM_GROUPS[kind].model_fields
        known = [each for each in known if not each.startswith("llm.") or each[4:] in own]
        elsewhere = [f"llm={name}" for name, group in LLM_GROUPS.items() if key[4:] in group.model_fields]
        if elsewhere:
            return f"{line} It belongs to {' and '.join(elsewhere)}"
    return line + (
        did_you_mean(key, known) or did_you_mean(key, (), all_of=_below(key.rpartition(".")[0], known))
    )


def _below(section: str, known: Iterable[str]) -> Iterable[str]:
    """The keys of a section; where there is no such section, the keys and sections there are."""
    inside = [key for key in known if section and key.startswith(f"{section}.")]
    return inside or dict.fromkeys(key.partition(".")[0] for key in known)


def _wrong(key: str, details: list[ErrorDetails], root: type[BaseModel]) -> str:
    first = details[0]
    if first["type"] == "missing":
        return f"{key} is needed: write {key}=..."
    if first["type"].startswith("union_tag"):
        kind = cast("dict[str, Any]", first["input"]).get("kind")
        return f"llm.kind={given(kind)}: must be one of {', '.join(LLM_GROUPS)}"
    allowed = dict.fromkeys(
        _ALLOWED[each["type"]].format(**each.get("ctx", {})) if each["type"] in _ALLOWED else each["msg"]
        for each in details
    )
    line = f"{key}={given(first['input'])}: must be {' or '.join(allowed)}."
    if first["type"] in ("model_type", "model_attributes_type"):
        return line + did_you_mean(key, (), all_of=_below(key, known_keys(root)))
    if first["type"] != "literal_error":
        return line
    options = [
        option.strip(" '") for option in str(first.get("ctx", {})["expected"]).replace(" or ", ",").split(",")
    ]
    return line + did_you_mean(str(first["input"]), options)
