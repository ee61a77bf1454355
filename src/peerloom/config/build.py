"""From a checked `Config` to the runtime objects it describes."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from peerloom.config.resume import kept_on_resume
from peerloom.config.rules import unknown_roles
from peerloom.config.schema import Config
from peerloom.config.secrets import refuse_secrets
from peerloom.config.sections.llm import Hosted, LlamaCpp, Served
from peerloom.config.sections.money import make_cache, make_prices, settle_cache, settle_prices
from peerloom.errors import ConfigError
from peerloom.runtime.settings import RoleSettings, RunSettings
from peerloom.services.llm.llamacpp.weights import canonical
from peerloom.source.open import open_source
from peerloom.source.parts.combined import PartsSource
from peerloom.source.storage.urls import is_url

_NO_SHAPE = {
    *("recipe", "source", "sink", "limit", "llm", "llms", "roles", "ray", "journal"),
    *("agents", "budget", "prices", "cache"),
}


_MODELS = ("llm.", "llms.", "roles.")  # keys that say which model answers


def settle(config: Config, sample: Path | None = None) -> Config:
    """Fill in what depends on the recipe and the environment, so that `run.yaml` says what ran.

    Args:
        config: as the user gave it.
        sample: the recipe's bundled rows, read if no source is given.

    Raises:
        ConfigError: if the environment's server address holds a secret.
        ModelError: if there are no such weights.
    """
    llm = _settled(config.llm) if config.llm is not None else None
    # A slot keeps one conversation's prompt in its cache: more of them at once would push each other out.
    suits = llm.slots * llm.replicas if isinstance(llm, LlamaCpp) else RunSettings.in_flight
    settled = config.model_copy(
        update={
            "source": config.source.model_copy(update={"path": _absolute(config.source.path or sample)}),
            "llm": llm,
            "llms": {name: _settled(each) for name, each in config.llms.items()},
            "in_flight": config.in_flight or suits,
            "prices": settle_prices(config.prices),
            "cache": settle_cache(config.cache),
        }
    )
    refuse_secrets(settled.model_dump(mode="json"))
    return settled


def _settled(llm: Served) -> Served:
    if isinstance(llm, LlamaCpp):
        return replace(llm, model=canonical(llm.model))
    if isinstance(llm, Hosted):
        provider = llm.dialect().provider
        found = llm.base_url or os.environ.get(provider.url_env) or provider.url or None
        return replace(llm, base_url=found)
    return llm


def make_source(config: Config) -> PartsSource:
    """The source of `source.path`; what has to be downloaded for it is.

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
    """The shape of the run, for a workflow with these roles.

    Raises:
        ConfigError: if a role is placed that the workflow does not have, or prices cannot be read.
    """
    problems = unknown_roles(config, roles)
    if problems:
        raise ConfigError("\n".join(problems))
    placed = {
        name: RoleSettings(role.replicas or config.peers or 1, role.resources)
        for name, role in config.roles.items()
        if role.placed
    }
    shape = config.model_dump(exclude=_NO_SHAPE)
    same = kept_on_resume(config).same
    return RunSettings(
        **shape,
        roles=placed,
        address=config.ray.address,
        timeouts={name: agent.timeout for name, agent in config.agents.items() if agent.timeout},
        journal=config.journal == "on",
        budget=config.budget,
        prices=make_prices(config.prices),
        cache=make_cache(config.cache, {key: same[key] for key in same if key.startswith(_MODELS)}),
    )


def _absolute(path: str | Path | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if isinstance(path, tuple):
        return tuple(_absolute_one(each) for each in path)
    return _absolute_one(path) if path is not None else None


def _absolute_one(path: str | Path) -> str:
    text = os.fspath(path)
    return text if is_url(text) else os.path.abspath(os.path.expanduser(text))
