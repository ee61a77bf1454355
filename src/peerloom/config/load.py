"""Convert the composed dictionary to a checked, frozen `Config`, and that to the text of `run.yaml`."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import msgspec
import yaml
from pydantic import Field, TypeAdapter, ValidationError

from peerloom.config.composition.compose import mappings_in, models_of
from peerloom.config.composition.overrides import literal
from peerloom.config.explain import explain
from peerloom.config.rules import broken_rules
from peerloom.config.schema import Config, RecipeSection, SourceSection, one_of
from peerloom.config.secrets import refuse_secrets
from peerloom.config.sections.base import own_options, redeclared
from peerloom.config.sections.llm import LLM_GROUPS, find_group, known_kinds
from peerloom.config.sections.services import service_section
from peerloom.errors import ConfigError
from peerloom.options import Options
from peerloom.sink.export.exporter import find_exporter
from peerloom.source.format import find_format
from peerloom.values import check as check_value

_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of", "pattern", "min_length", "max_length")


def check(composed: Mapping[str, Any], options: type | None = None) -> Config:
    """Check a composed configuration.

    Args:
        composed: the result of `compose`.
        options: the dataclass of the recipe's own options, if it has any.

    Raises:
        ConfigError: with a line for each invalid key, value or combination.
    """
    refuse_secrets(composed)
    model = _with_options(options, composed)
    try:
        config = TypeAdapter(model).validate_json(_as_json({"source": {}, **composed}))
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model))) from error
    find_exporter(config.sink.format)
    problems = broken_rules(config)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def to_yaml(config: Config, comment: str = "") -> str:
    """Return the text of `run.yaml`: every key with its value, loadable as a run file."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    plain = literal(config.plain())
    return head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1000)


def _as_json(composed: Mapping[str, Any]) -> str:
    """Return the configuration as JSON; dates and other YAML-only values become text."""
    text = json.dumps(composed, default=str)
    try:
        check_value(json.loads(text), "configuration")
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(error)) from error
    return text


def _format(composed: Mapping[str, Any]) -> str:
    """Return the format of the source; a value of another type is reported with all other errors."""
    section = composed.get("source")
    name = cast("dict[str, Any]", section).get("format") if isinstance(section, dict) else None
    return name if isinstance(name, str) else "auto"


def _with_options(recipe_options: type | None, composed: Mapping[str, Any]) -> type[Config]:
    """Return `Config` with the options of its recipe, its source, and its kinds of services."""
    source_format = find_format(_format(composed))
    hints = get_type_hints(recipe_options, include_extras=True) if recipe_options is not None else {}
    recipe = _extended(RecipeSection, recipe_options, {name: _bounded(hint) for name, hint in hints.items()})
    source = _extended(SourceSection, source_format, own_options(source_format))
    # Kinds that are import paths, or declared by other packages; the schema reports unknown ones.
    kinds = {str(each.get("kind")) for each in models_of(composed)}
    others = {kind for kind in kinds if ":" in kind or kind in known_kinds()} - LLM_GROUPS.keys()
    llm: Any = one_of(LLM_GROUPS | {kind: find_group(kind) for kind in others})
    keys = {each.get("kind"): name for name, each in mappings_in(composed.get("services")).items()}
    keys = {"kv": "NAME"} | {kind: name for kind, name in keys.items() if isinstance(kind, str)}
    service: Any = one_of(
        {kind: service_section(kind, f"services.{name}.kind") for kind, name in keys.items()}
    )
    sections: list[Any] = [
        ("recipe", recipe, dataclasses.field(default_factory=recipe)),
        ("source", source),
        ("llm", llm | None, None),
        ("llms", dict[str, llm], dataclasses.field(default_factory=dict)),
        ("services", dict[str, service], dataclasses.field(default_factory=dict)),
    ]
    return dataclasses.make_dataclass("Config", sections, bases=(Config,), frozen=True, kw_only=True)


def _extended(section: type[Options], options: Any, hints: Mapping[str, Any]) -> type[Options]:
    """Return a section with further keys, which are fields of the dataclass `options`."""
    declared = {each.name: redeclared(each) for each in dataclasses.fields(options)} if hints else {}
    keys = [(name, hint, declared[name]) for name, hint in hints.items()]
    return dataclasses.make_dataclass(section.__name__, keys, bases=(section,), frozen=True, kw_only=True)


def _bounded(hint: Any) -> Any:
    """Convert the bounds of a recipe's option from `msgspec.Meta` to pydantic's form."""
    if get_origin(hint) is not Annotated:
        return hint
    kind, *notes = get_args(hint)
    bounds = {
        name: value
        for note in notes
        if isinstance(note, msgspec.Meta)
        for name in _BOUNDS
        if (value := getattr(note, name)) is not None
    }
    return Annotated[kind, Field(**bounds)]
