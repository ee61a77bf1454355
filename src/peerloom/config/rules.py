"""Check combinations of keys: each is valid by itself, but they cannot work together."""

from collections.abc import Iterable, Iterator
from typing import Any

from peerloom.config.schema import Config
from peerloom.config.sections.llm import LlamaCpp, Scripted
from peerloom.lookup.nearest import did_you_mean
from peerloom.services.leased.service import StatefulOptions
from peerloom.services.llm.client.router import DEFAULT, routing_problems


def broken_rules(config: Config) -> list[str]:
    """Return a line for each impossible combination."""
    return [*_broken_keys(config), *_broken_services(config), *_broken_other_services(config)]


def unknown_roles(config: Config, roles: Iterable[str]) -> list[str]:
    """Return a line for each role of the configuration that the workflow does not have."""
    known = list(roles)
    return [
        f"{section}.{name}: the workflow has no role {name!r}.{did_you_mean(name, known, all_of=known)}"
        for section, names in (("roles", config.roles), ("agents", config.agents))
        for name in names
        if name not in known
    ]


def _broken_keys(config: Config) -> Iterator[str]:
    placed = [name for name, role in config.roles.items() if role.placed]
    if config.placement == "packed" and placed:
        role = placed[0]
        yield (
            f"roles.{role} needs placement=spread: with placement=packed every peer hosts all roles, "
            "and peers=N says how many there are"
        )
    if config.engine == "local" and config.ray.address is not None:
        yield f"ray.address={config.ray.address} needs engine=ray: engine=local starts no other process"
    if config.suspect_seconds <= config.heartbeat_seconds:
        yield (
            f"suspect_seconds={config.suspect_seconds:g} must be more than "
            f"heartbeat_seconds={config.heartbeat_seconds:g}: else every process is suspected"
        )


def _broken_services(config: Config) -> Iterator[str]:
    named = {DEFAULT: config.llm, **config.llms} if config.llm is not None else config.llms
    if DEFAULT in config.llms:
        yield f"llms.{DEFAULT}: that is the name of the service in llm: give this one another"
    roles = {name: role.llm for name, role in config.roles.items() if role.llm is not None}
    if config.llm is not None or config.llms:
        yield from routing_problems({name: each.fallback for name, each in named.items() if each}, roles)
    elif roles:
        role, name = next(iter(roles.items()))
        yield f"roles.{role}.llm={name}: the model was given in Python: give a ServiceRouter there"
    for name, each in named.items():
        key = name if name == DEFAULT else f"llms.{name}"
        if config.engine == "local" and isinstance(each, LlamaCpp) and each.placement == "nodes":
            yield f"{key}.placement=nodes needs engine=ray: engine=local knows no other machine"
        if isinstance(each, Scripted) and not each.replies:
            yield _no_script(key)


def _broken_other_services(config: Config) -> Iterator[str]:
    services: dict[str, Any] = {**config.services}  # also of kinds without leases
    for name, each in services.items():
        if name == DEFAULT:
            yield f"services.{name}: that is the name of the language model: give this service another"
        if isinstance(each, StatefulOptions):
            if config.journal == "off":
                yield f"services.{name} needs journal=on: its steps are recorded there"
            if config.engine == "local" and each.nodes:
                yield f"services.{name}.nodes=true needs engine=ray: engine=local knows no other machine"


def _no_script(key: str) -> str:
    return (
        f"{key}=scripted has no script: give {key}.replies=['first reply','second reply'], "
        "or in Python peerloom.run(..., llm=function_of_the_request)"
    )
