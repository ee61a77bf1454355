"""Explain pydantic's validation errors in terms of the user's keys, with one line for each key.

A line names the dotted key, the given and the allowed value, and the most similar valid key.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, cast, get_args, get_origin

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from peerloom.config.sections.base import fields_of, is_section
from peerloom.config.sections.llm import LLM_GROUPS, find_group, known_kinds
from peerloom.lookup.nearest import did_you_mean
from peerloom.services.kinds import SERVICES

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
    "dataclass_type": "a group of keys",
    "literal_error": "{expected}",
    "greater_than_equal": "{ge:g} or more",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "{le:g} or less",
    "less_than": "less than {lt:g}",
}
_MEMBER_OF_UNION = re.compile(r"str|int|float|bool|constrained-.*|.*\[.*")
_LONGEST = 80


def explain(error: ValidationError, root: type[Any]) -> list[str]:
    """Return one line for each invalid key of the configuration `root`."""
    unknown: list[str] = []
    wrong: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        key = _dotted(detail["loc"])
        if detail["type"] == "unexpected_keyword_argument":
            kind = _kind(detail["loc"])
            unknown += [_unknown(leaf, value, root, kind) for leaf, value in _leaves(key, detail["input"])]
        else:
            wrong.setdefault(key, []).append(detail)
    return unknown + [_wrong(key, details, root) for key, details in wrong.items()]


def known_keys(model: type[Any], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a model, with `<name>` where the user chooses the name."""
    for name, field in fields_of(model).items():
        key = f"{prefix}{name}"
        sections = dict.fromkeys(_sections(field.annotation))
        below = f"{key}.<name>." if get_origin(field.annotation) is dict else f"{key}."
        for section in sections:
            yield from known_keys(section, below)
        if key == "llm" or not sections:
            yield key


def shown(value: Any) -> str:
    """Return a value in the form that a user would type, shortened."""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _sections(annotation: Any) -> Iterator[type[Any]]:
    if is_section(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _dotted(loc: tuple[int | str, ...]) -> str:
    """Return the key as the user types it, without pydantic's markers for members of a union."""
    parts: list[str] = []
    for index, part in enumerate(loc):
        if isinstance(part, int) or _MEMBER_OF_UNION.fullmatch(part):
            break
        if not _is_kind(loc, index):
            parts.append(part)
    return ".".join(parts)


def _is_kind(loc: tuple[int | str, ...], index: int) -> bool:
    """Return whether this part of a location is pydantic's tag for the group of a service."""
    return index == {"llm": 1, "llms": 2, "services": 2}.get(str(loc[0]))


def _kind(loc: tuple[int | str, ...]) -> str:
    return next((str(part) for index, part in enumerate(loc) if _is_kind(loc, index)), "")


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def _unknown(key: str, value: Any, root: type[Any], kind: str) -> str:
    parts = key.split(".")
    known: Collection[str] = dict.fromkeys(
        each.replace(f"{parts[0]}.<name>", ".".join(parts[:2])) for each in known_keys(root)
    )
    if not kind:
        line = f"{key}={shown(value)}: there is no key {key!r}."
    else:
        service = ".".join(parts[: 1 if parts[0] == "llm" else 2])
        leaf = key.removeprefix(f"{service}.")
        line = f"{key}={shown(value)}: {service}={kind} has no key {key!r}."
        if parts[0] == "services":
            return line + did_you_mean(key, [each for each in known if each.startswith(f"{service}.")])
        elsewhere = [f"llm={name}" for name, group in LLM_GROUPS.items() if leaf in known_keys(group)]
        if elsewhere:
            return f"{line} It belongs to {' and '.join(elsewhere)}"
        known = [
            each
            for each in known
            if not each.startswith(f"{service}.") or _has(kind, each.removeprefix(f"{service}."))
        ]
    return line + (
        did_you_mean(key, known) or did_you_mean(key, (), all_of=_below(key.rpartition(".")[0], known))
    )


def _has(kind: str, key: str) -> bool:
    """Return whether a group of services has a key, or the section of a dotted key."""
    return key.partition(".")[0] in fields_of(find_group(kind))


def _below(section: str, known: Collection[str]) -> Iterable[str]:
    """Return the keys of a section, then its sections; if it does not exist, those of the configuration."""
    prefix = f"{section}." if section and any(key.startswith(f"{section}.") for key in known) else ""
    inside = [key.removeprefix(prefix).partition(".") for key in known if key.startswith(prefix)]
    inside.sort(key=lambda parts: bool(prefix and parts[2]))
    return dict.fromkeys(f"{prefix}{head}" for head, _, _ in inside)


def _wrong(key: str, details: list[ErrorDetails], root: type[Any]) -> str:
    first = details[0]
    if first["type"] == "missing":
        return f"{key} is needed: write {key}=..."
    if first["type"].startswith("union_tag"):
        kinds = ", ".join(SERVICES.names() if key.startswith("services.") else known_kinds())
        if not isinstance(first["input"], dict):
            return f"{key}={shown(first['input'])}: must be a section: write {key}.kind= one of {kinds}"
        kind = cast("dict[str, Any]", first["input"]).get("kind")
        return f"{key}.kind={shown(kind)}: must be one of {kinds}"
    allowed = dict.fromkeys(
        _ALLOWED[each["type"]].format(**each.get("ctx", {})) if each["type"] in _ALLOWED else each["msg"]
        for each in details
    )
    line = f"{key}={shown(first['input'])}: must be {' or '.join(allowed)}."
    if first["type"] == "dataclass_type":
        return line + did_you_mean(key, (), all_of=_below(key, list(known_keys(root))))
    if first["type"] != "literal_error":
        return line
    options = [
        option.strip(" '") for option in str(first.get("ctx", {})["expected"]).replace(" or ", ",").split(",")
    ]
    return line + did_you_mean(str(first["input"]), options)
