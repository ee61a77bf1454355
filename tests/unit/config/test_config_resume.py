from collections.abc import Iterator
from typing import Any, get_args

from peerloom.config import Config, check, compose
from peerloom.config.build import resolve
from peerloom.config.resume import resume_values, rule_of
from peerloom.config.sections.base import fields_of, is_section
from peerloom.config.sections.llm import LLM_GROUPS
from peerloom.options import FREE, MAY_GROW, SAME, OnResume, Options
from peerloom.recipes import find


def sections(kind: Any) -> Iterator[type[Any]]:
    """The sections in a field's type."""
    if is_section(kind):
        assert issubclass(kind, Options)
        yield kind
    for inner in get_args(kind):
        yield from sections(inner)


def rules(section: type[Any], prefix: str = "") -> Iterator[tuple[str, OnResume | None]]:
    for name, field in fields_of(section).items():
        below = list(sections(field.annotation))
        rule = rule_of(section, name)
        if rule is not None or not below:
            yield prefix + name, rule
            continue
        for inner in below:
            yield from rules(inner, f"{prefix}{name}.")


def test_every_key_of_the_schema_says_what_may_become_of_it() -> None:
    said = dict(rules(Config))
    assert [key for key, rule in said.items() if rule is None] == []
    assert {key.split(".")[1] for key in said if key.startswith("llm.")} >= {"model", "replies", "latency"}
    assert {key for key, rule in said.items() if rule is MAY_GROW} == {"limit"}
    assert {rule for key, rule in said.items() if key in ("seed", "trials", "shards", "source.key")} == {SAME}
    assert {said[key] for key in ("source.field", "source.format")} == {SAME}
    assert {said[key] for key in ("in_flight", "partitions", "peers", "engine", "ray.address")} == {FREE}


def kept(*overrides: str) -> dict[str, Any]:
    config = resolve(check(compose("coral", overrides), find("coral").params))
    return {**resume_values(config).same, **resume_values(config).grows}


def test_a_recipes_own_options_decide_its_rows() -> None:
    values = kept("recipe.max_rounds=2", "llm=simulated")
    assert (values["recipe.name"], values["recipe.max_rounds"]) == ("coral", 2)


def test_where_and_how_fast_the_model_is_does_not_count() -> None:
    one = kept("llm=openai", "llm.base_url=http://a/v1", "llm.model=m", "llm.timeout=5", "in_flight=3")
    two = kept("llm=openai", "llm.base_url=http://b/v1", "llm.model=m", "llm.max_retries=1", "peers=7")
    assert one == two
    assert one != kept("llm=openai", "llm.model=n")
    assert one != kept("llm=openai", "llm.model=m", "llm.extra_body={top_k: 1}")


def test_another_kind_of_model_counts() -> None:
    assert kept("llm=simulated")["llm.kind"] != kept("llm=llamacpp")["llm.kind"]
    assert all("kind" in fields_of(group) for group in LLM_GROUPS.values())


def test_the_limit_may_grow() -> None:
    assert kept("limit=3")["limit"] == 3
