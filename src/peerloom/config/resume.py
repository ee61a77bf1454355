"""What of a configuration must stay the same when a run is resumed, as the schema's keys say themselves."""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from peerloom.config.base import MAY_GROW, SAME, OnResume, Section
from peerloom.config.schema import Config, Recipe


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


def rule_of(section: type[Section], name: str) -> OnResume | None:
    """What a key says; None for one that holds a section. A recipe's own options decide its rows."""
    notes = section.model_fields[name].metadata
    own = SAME if issubclass(section, Recipe) else None
    return next((note for note in notes if isinstance(note, OnResume)), own)


def _keys(section: Section, plain: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any, OnResume]]:
    for name in type(section).model_fields:
        value, rule = getattr(section, name), rule_of(type(section), name)
        if rule is not None:
            yield f"{prefix}{name}", plain[name], rule
        elif isinstance(value, Section):
            yield from _keys(value, plain[name], f"{prefix}{name}.")
        elif isinstance(value, dict):
            yield from _given(cast("dict[str, Section]", value), plain[name], f"{prefix}{name}.")


def _given(
    sections: dict[str, Section], plain: dict[str, Any], prefix: str
) -> Iterator[tuple[str, Any, OnResume]]:
    """Of sections that the user has named, what is not as it would be without them."""
    for name, section in sections.items():
        for key, value, rule in _keys(section, plain[name], f"{prefix}{name}."):
            if value is not None:
                yield key, value, rule
