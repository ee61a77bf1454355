"""Collect the values that must stay the same when a run is resumed, as the schema's keys declare."""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from peerloom.config.schema import Config, RecipeSection
from peerloom.config.sections.base import fields_of, is_section, resume_rule
from peerloom.options import MAY_GROW, SAME, OnResume


class ResumeValues(NamedTuple):
    """Values by dotted key: those that must stay the same, and those that may only increase."""

    same: dict[str, Any]
    grows: dict[str, int | None]


def resume_values(config: Config) -> ResumeValues:
    """Return the JSON values by which the configuration of a resumed run is compared."""
    values = ResumeValues({}, {})
    for key, value, rule in _keys(config, config.plain(), ""):
        if rule is SAME:
            values.same[key] = value
        elif rule is MAY_GROW:
            values.grows[key] = value
    return values


def rule_of(section: Any, name: str) -> OnResume | None:
    """Return the rule of a key; None for one that holds a section. A recipe's options must stay the same."""
    default = SAME if issubclass(cast("type", section), RecipeSection) else None
    return resume_rule(fields_of(section)[name].metadata) or default


def _keys(section: object, plain: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any, OnResume]]:
    for name in fields_of(type(section)):
        value, rule = getattr(section, name), rule_of(type(section), name)
        if rule is not None:
            yield f"{prefix}{name}", plain[name], rule
        elif is_section(type(value)):
            yield from _keys(value, plain[name], f"{prefix}{name}.")
        elif isinstance(value, dict):
            yield from _given(cast("dict[str, Any]", value), plain[name], f"{prefix}{name}.")


def _given(
    sections: dict[str, Any], plain: dict[str, Any], prefix: str
) -> Iterator[tuple[str, Any, OnResume]]:
    """Yield the keys of sections that the user has named, without those whose value is None."""
    for name, section in sections.items():
        for key, value, rule in _keys(section, plain[name], f"{prefix}{name}."):
            if value is not None:
                yield key, value, rule
