"""Combinations of keys that cannot run, each right by itself."""

from collections.abc import Iterable, Iterator

from peerloom.config.llm import LlamaCpp, Scripted
from peerloom.config.nearest import did_you_mean
from peerloom.config.schema import Config


def broken_rules(config: Config) -> list[str]:
    """A line for each impossible combination."""
    return list(_broken(config))


def unknown_roles(config: Config, roles: Iterable[str]) -> list[str]:
    """A line for each placed role that the workflow does not have."""
    known = list(roles)
    return [
        f"roles.{name}: the workflow has no role {name!r}.{did_you_mean(name, known, all_of=known)}"
        for name in config.roles
        if name not in known
    ]


def _broken(config: Config) -> Iterator[str]:
    if config.placement == "packed" and config.roles:
        role = next(iter(config.roles))
        yield (
            f"roles.{role} needs placement=spread: with placement=packed every peer hosts all roles, "
            "and peers=N says how many there are"
        )
    if config.engine == "local" and config.ray.address is not None:
        yield f"ray.address={config.ray.address} needs engine=ray: engine=local starts no other process"
    if config.engine == "local" and isinstance(config.llm, LlamaCpp) and config.llm.placement == "nodes":
        yield "llm.placement=nodes needs engine=ray: engine=local knows no other machine"
    if config.suspect_seconds <= config.heartbeat_seconds:
        yield (
            f"suspect_seconds={config.suspect_seconds:g} must be more than "
            f"heartbeat_seconds={config.heartbeat_seconds:g}: else every process is suspected"
        )
    if isinstance(config.llm, Scripted) and not config.llm.replies:
        yield (
            "llm=scripted has no script: give llm.replies=['first reply','second reply'], "
            "or in Python peerloom.run(..., llm=function_of_the_request)"
        )
