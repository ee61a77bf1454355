"""Check JSON schemas when an agent is created, so that no call is made with an invalid one."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

from peerloom.errors import ConfigError
from peerloom.values import MAX_DEPTH, too_deep

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ALL_APPLY = ("allOf", "anyOf", "oneOf")
_EACH_APPLIES = ("not", "if", "then", "else")
_LONGEST = 120


def validator_of(schema: Any) -> Any:
    """Return a validator of values for a JSON schema (draft 2020-12).

    Raises:
        ConfigError: if it is not a JSON schema, is nested too deep, has an invalid pattern, or has a
        reference
            that is unresolvable, external or circular; the text names the place.
    """
    # jsonschema takes 0.1 s to import, and most runs have no schema.
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415

    if too_deep(schema):
        raise ConfigError(f"schema: nested more than {MAX_DEPTH} levels deep")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"schema: at {error.json_path}: {error.message}") from error
    _check_parts(schema)
    return Draft202012Validator(schema)


def _check_parts(schema: Any) -> None:
    from referencing import Registry  # noqa: PLC0415
    from referencing.jsonschema import DRAFT202012  # noqa: PLC0415

    root = DRAFT202012.create_resource(schema)
    registry = cast("Any", Registry)().with_resource("", root)
    seen: dict[int, list[int]] = {}  # for each part, the parts that apply to the same value
    pending: list[tuple[Any, Any]] = [(root, registry.resolver())]
    while pending:
        part, resolver = pending.pop()
        if id(part.contents) in seen or not isinstance(part.contents, Mapping):
            continue
        contents = cast("Mapping[str, Any]", part.contents)
        resolver = resolver.in_subresource(part)
        targets = [_resolve(resolver, contents[name], name) for name in _REFERENCES if name in contents]
        pending += [(DRAFT202012.create_resource(target.contents), target.resolver) for target in targets]
        pending += [(inner, resolver) for inner in part.subresources()]
        applied = [*(target.contents for target in targets), *_applied(contents)]
        seen[id(contents)] = [id(each) for each in applied]
    try:  # a part that applies itself to the same value, directly or through other parts
        TopologicalSorter(seen).prepare()
    except CycleError as error:
        raise ConfigError(
            "schema: a $ref leads back to itself, so that checking a value never ends"
        ) from error


def _resolve(resolver: Any, reference: Any, name: str) -> Any:
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    shown = f"schema: {name} {str(reference)[:_LONGEST]!r}"
    try:
        return resolver.lookup(str(reference))
    except Unresolvable as error:
        where = "leads nowhere" if str(reference).startswith("#") else "leads out of the schema"
        raise ConfigError(f"{shown} {where}: define it below $defs at the schema's root") from error


def _applied(contents: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the subschemas of a part that apply to the same value."""
    for name in _ALL_APPLY:
        yield from contents.get(name, ())
    yield from (contents[name] for name in _EACH_APPLIES if name in contents)
    yield from contents.get("dependentSchemas", {}).values()
