"""Build the source and the settings of a run from a checked `Config`."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from peerloom.config.resume import resume_values
from peerloom.config.rules import unknown_roles
from peerloom.config.schema import Config
from peerloom.config.secrets import refuse_secrets
from peerloom.config.sections.llm import Hosted, LlamaCpp, ServiceSection
from peerloom.config.sections.money import absolute, make_cache, resolve_cache, resolve_prices
from peerloom.errors import ConfigError
from peerloom.runtime.settings import RoleSettings, RunSettings
from peerloom.services.llm.llamacpp.weights import canonical
from peerloom.services.llm.usage.prices import read_prices
from peerloom.source.open import open_source
from peerloom.source.parts.combined import PartsSource
from peerloom.source.storage.urls import is_url

_NOT_SETTINGS = {
    *("recipe", "source", "sink", "limit", "llm", "llms", "roles", "ray", "journal"),
    *("agents", "budget", "prices", "cache"),
}


_MODELS = ("llm.", "llms.", "roles.")  # keys that say which model answers


def resolve(config: Config, sample: Path | None = None) -> Config:
    """Fill in the values that depend on the recipe and the environment, so that `run.yaml` is complete.

    Args:
        config: the configuration that the user gave.
        sample: the recipe's bundled rows, the default source.

    Raises:
        ConfigError: if the environment's server address holds a secret.
        ModelError: if the weights do not exist.
    """
    llm = _resolve_llm(config.llm) if config.llm is not None else None
    # A slot caches the prompt of one conversation: with more in flight they would evict each other.
    in_flight = llm.slots * llm.replicas if isinstance(llm, LlamaCpp) else RunSettings.in_flight
    resolved = config.model_copy(
        update={
            "source": config.source.model_copy(update={"path": _absolute(config.source.path or sample)}),
            "llm": llm,
            "llms": {name: _resolve_llm(each) for name, each in config.llms.items()},
            "in_flight": config.in_flight or in_flight,
            "prices": resolve_prices(config.prices),
            "cache": resolve_cache(config.cache),
        }
    )
    refuse_secrets(resolved.model_dump(mode="json"))
    return resolved


def _resolve_llm(llm: ServiceSection) -> ServiceSection:
    if isinstance(llm, LlamaCpp):
        return replace(llm, model=canonical(llm.model))
    if isinstance(llm, Hosted):
        provider = llm.dialect().provider
        base_url = llm.base_url or os.environ.get(provider.url_env) or provider.url or None
        return replace(llm, base_url=base_url)
    return llm


def make_source(config: Config) -> PartsSource:
    """Return the source of `source.path`, and download its files if necessary.

    Raises:
        ConfigError: if there is no path.
        SourceError: if it cannot be read.
    """
    source = config.source
    if source.path is None:
        raise ConfigError("source.path is needed: the rows to work on, e.g. source.path=questions.jsonl")
    return open_source(
        source.path, key=source.key, field=source.field, format=source.format, limit=config.limit
    )


def make_settings(config: Config, roles: Iterable[str]) -> RunSettings:
    """Return the settings of the run, for a workflow with these roles.

    Raises:
        ConfigError: if the configuration names a role that the workflow does not have, or prices cannot be
            read.
    """
    problems = unknown_roles(config, roles)
    if problems:
        raise ConfigError("\n".join(problems))
    placed = {
        name: RoleSettings(role.replicas or config.peers or 1, role.resources)
        for name, role in config.roles.items()
        if role.placed
    }
    same = resume_values(config).same
    return RunSettings(
        **config.model_dump(exclude=_NOT_SETTINGS),
        roles=placed,
        address=config.ray.address,
        timeouts={name: agent.timeout for name, agent in config.agents.items() if agent.timeout},
        journal=config.journal == "on",
        budget=config.budget,
        prices=read_prices(config.prices),
        cache=make_cache(config.cache, {key: same[key] for key in same if key.startswith(_MODELS)}),
    )


def _absolute(path: str | Path | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if isinstance(path, tuple):
        return tuple(_absolute_one(each) for each in path)
    return _absolute_one(path) if path is not None else None


def _absolute_one(path: str | Path) -> str:
    text = os.fspath(path)
    return text if is_url(text) else absolute(text)
