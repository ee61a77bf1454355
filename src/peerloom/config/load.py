"""Convert the composed dictionary to a checked, frozen `Config`, and that to the text of `run.yaml`."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import msgspec
import yaml
from pydantic import Field, ValidationError, create_model

from peerloom.config.composition.overrides import literal
from peerloom.config.explain import explain
from peerloom.config.providers import find_group, known_kinds
from peerloom.config.rules import broken_rules
from peerloom.config.schema import Config, RecipeSection, llm_of
from peerloom.config.secrets import refuse_secrets
from peerloom.config.sections.llm import LLM_GROUPS
from peerloom.errors import ConfigError
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
    model = _with_options(options, _kinds(composed))
    try:
        config = model.model_validate_json(_as_json(composed))
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model))) from error
    problems = broken_rules(config)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def to_yaml(config: Config, comment: str = "") -> str:
    """Return the text of `run.yaml`: every key with its value, loadable as a run file."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    plain = literal(config.model_dump(mode="json"))
    return head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1000)


def _as_json(composed: Mapping[str, Any]) -> str:
    """Return the configuration as JSON; dates and other YAML-only values become text."""
    text = json.dumps(composed, default=str)
    try:
        check_value(json.loads(text), "configuration")
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(error)) from error
    return text


def _kinds(composed: Mapping[str, Any]) -> set[str]:
    """Return the kinds of services in the configuration that are not built in.

    They are import paths, or declared by other packages.
    """
    named = composed.get("llms")
    others = cast("dict[str, Any]", named).values() if isinstance(named, dict) else ()
    kinds = {
        str(cast("dict[str, Any]", each).get("kind"))
        for each in (composed.get("llm"), *others)
        if isinstance(each, dict)
    }
    return {kind for kind in kinds if ":" in kind or kind in known_kinds()} - LLM_GROUPS.keys()


def _with_options(options: type | None, kinds: Iterable[str]) -> type[Config]:
    """Return `Config` with the options of one recipe under `recipe`, and additional kinds of services."""
    fields: dict[str, Any] = {}
    if options is not None:
        hints = get_type_hints(options, include_extras=True)
        for field in dataclasses.fields(options):
            fields[field.name] = (_bounded(hints[field.name]), _default(field))
    recipe = create_model("RecipeSection", __base__=RecipeSection, **fields)
    llm: Any = llm_of(LLM_GROUPS | {kind: find_group(kind) for kind in kinds})
    sections: dict[str, Any] = {
        "recipe": (recipe, Field(default_factory=recipe)),
        "llm": (llm | None, None),
        "llms": (dict[str, llm], Field(default_factory=dict)),
    }
    return create_model("Config", __base__=Config, **sections)


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


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ... if field.default is dataclasses.MISSING else field.default
