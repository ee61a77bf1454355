"""Build the source, the services, and the settings of a run from a checked `Config`."""

import os
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

from peerloom.config.resume import resume_values
from peerloom.config.rules import unknown_roles
from peerloom.config.schema import Config
from peerloom.config.secrets import refuse_secrets
from peerloom.config.sections.base import own_options
from peerloom.config.sections.llm import Hosted, LlamaCpp, ServiceSection
from peerloom.config.sections.services import service_of
from peerloom.errors import ConfigError
from peerloom.runtime.settings import RoleSettings, RunKeys, RunSettings
from peerloom.services.base import Service
from peerloom.services.llm.cache.client import CacheSettings
from peerloom.services.llm.client.router import DEFAULT, ServiceRouter
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.llamacpp.weights import canonical
from peerloom.services.llm.usage.prices import GENAI, read_prices
from peerloom.source.combined import PartsSource
from peerloom.source.format import find_format
from peerloom.source.formats.auto import Auto
from peerloom.source.formats.stream import StreamInput
from peerloom.source.open import open_source
from peerloom.source.storage.urls import is_url
from peerloom.source.stream.recording import StreamSource
from peerloom.source.stream.streams import is_pipe

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
    default = sample if config.source.format in ("auto", "jsonl") else None
    path, prices = config.source.path or default, config.prices
    # A slot caches the prompt of one conversation: with more in flight they would evict each other.
    in_flight = llm.slots * llm.replicas if isinstance(llm, LlamaCpp) else RunSettings.in_flight
    resolved = replace(
        config,
        source=replace(
            config.source,
            path=tuple(map(_absolute, path)) if isinstance(path, tuple) else path and _absolute(path),
        ),
        llm=llm,
        llms={name: _resolve_llm(each) for name, each in config.llms.items()},
        in_flight=config.in_flight or in_flight,
        prices=_absolute(prices) if isinstance(prices, str) and prices != GENAI else prices,
        cache=replace(config.cache, path=config.cache.path and _absolute(config.cache.path)),
    )
    refuse_secrets(resolved.plain())
    return resolved


def _resolve_llm(llm: ServiceSection) -> ServiceSection:
    if isinstance(llm, LlamaCpp):
        return replace(llm, model=canonical(llm.model))
    if isinstance(llm, Hosted):
        provider = llm.dialect().provider
        base_url = llm.base_url or os.environ.get(provider.url_env) or provider.url or None
        return replace(llm, base_url=base_url)
    return llm


def _absolute(path: str | Path) -> str:
    """Return an absolute path, with `~` expanded; URLs stay as they are."""
    text = os.fspath(path)
    return text if is_url(text) or text == "-" else os.path.abspath(os.path.expanduser(text))


def make_source(config: Config) -> PartsSource | StreamSource:
    """Return the source, and download its files if necessary.

    Raises:
        ConfigError: if there is no path.
        SourceError: if it cannot be read.
    """
    source = config.source
    found = find_format(source.format)
    if source.path is None and found.needs_path:
        raise ConfigError("source.path is needed: the rows to work on, e.g. source.path=questions.jsonl")
    chosen = found(**{name: getattr(source, name) for name in own_options(found)})
    if isinstance(chosen, Auto) and isinstance(source.path, str) and is_pipe(source.path):
        chosen = StreamInput()
    if isinstance(chosen, StreamInput):
        if not isinstance(source.path, str):
            raise ConfigError("source.format=stream: source.path must be one path, pattern, or -")
        stream = chosen.stream(source.path, source.field)
        return StreamSource(stream, key=source.key, limit=config.limit)
    return open_source(
        source.path or "", key=source.key, field=source.field, format=chosen, limit=config.limit
    )


def make_router(config: Config) -> LLMService:
    """Return the router over the services of a run.

    Raises:
        ConfigError: if no model is chosen, or a service cannot work here, e.g. because a key is not set.
    """
    if config.llm is None:
        raise ConfigError("llm=null: no model is chosen: write llm=llamacpp, openai, fleet or simulated")
    sections = {DEFAULT: config.llm, **config.llms}
    return ServiceRouter(
        {name: section.service(config.seed) for name, section in sections.items()},
        {name: role.llm for name, role in config.roles.items() if role.llm is not None},
        sections,
    )


def make_services(config: Config) -> dict[str, Service]:
    """Return the services besides language models, by name."""
    return {name: service_of(section) for name, section in config.services.items()}


def embedded_models(config: Config) -> list[str]:
    """Return the models whose weights the run's own llama.cpp servers need, each once."""
    sections = (config.llm, *config.llms.values())
    return list(dict.fromkeys(section.model for section in sections if isinstance(section, LlamaCpp)))


def make_settings(config: Config, roles: Iterable[str]) -> RunSettings:
    """Return the settings of the run, for a workflow with these roles.

    Raises:
        ConfigError: if the configuration names a role that the workflow does not have, or prices cannot be
            read.
    """
    problems = unknown_roles(config, roles)
    if problems:
        raise ConfigError("\n".join(problems))
    cache = None
    if config.cache.path is not None:
        same = resume_values(config).same
        model = {key: value for key, value in same.items() if key.startswith(_MODELS)}
        cache = CacheSettings(path=config.cache.path, size_gb=config.cache.size_gb, model=model)
    return RunSettings(
        **{each.name: getattr(config, each.name) for each in fields(RunKeys)},
        in_flight=config.in_flight or RunSettings.in_flight,
        roles={
            name: RoleSettings(role.replicas, role.resources)
            for name, role in config.roles.items()
            if role.placed
        },
        journal=config.journal == "on",
        prices=read_prices(config.prices),
        cache=cache,
        timeouts={name: agent.timeout for name, agent in config.agents.items() if agent.timeout},
        address=config.ray.address,
        license=config.source.license,
    )
