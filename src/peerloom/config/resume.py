"""What of a configuration must stay the same when a run is resumed, as the schema's keys say themselves."""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from peerloom.config.schema import Config, Recipe
from peerloom.config.sections.base import fields_of, is_section, rule_among
from peerloom.options import MAY_GROW, SAME, OnResume


class Kept(NamedTuple):
    """Values by dotted key: those that must stay the same, and those that may only grow."""

    same: dict[str, Any]
    grows: dict[str, int | None]


def kept_on_resume(config: Config) -> Kept:
    """What a resumed run's configuration is compared by; JSON values."""
    kept = Kept({}, {})
    for key, value, rule in _keys(config, config.model_dump(mode="json"), ""):
        if rule is SAME:
            kept.same[key] = value
        elif rule is MAY_GROW:
            kept.grows[key] = value
    return kept


def rule_of(section: Any, name: str) -> OnResume | None:
    """What a key says; None for one that holds a section. A recipe's own options decide its rows."""
    own = SAME if issubclass(cast("type", section), Recipe) else None
    return rule_among(fields_of(section)[name].metadata) or own


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
    """Of sections that the user has named, what is not as it would be without them."""
    for name, section in sections.items():
        for key, value, rule in _keys(section, plain[name], f"{prefix}{name}."):
            if value is not None:
                yield key, value, rule
