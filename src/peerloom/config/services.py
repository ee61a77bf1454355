"""Create the services of a run from their configuration sections."""

from collections.abc import Mapping
from dataclasses import fields

from peerloom.config.schema import Config
from peerloom.config.sections.llm import LlamaCpp, ServiceSection
from peerloom.errors import ConfigError
from peerloom.services.llm.client.router import DEFAULT, ServiceOptions, ServiceRouter
from peerloom.services.llm.client.service import LLMService


def make_router(config: Config) -> LLMService:
    """Return the router over the services of a run.

    Raises:
        ConfigError: if no model is chosen, or a service cannot work here, e.g. because a key is not set.
    """
    if config.llm is None:
        raise ConfigError("llm=null: no model is chosen: write llm=llamacpp, openai, fleet or simulated")
    sections: Mapping[str, ServiceSection] = {DEFAULT: config.llm, **config.llms}
    return ServiceRouter(
        {name: section.service(config.seed) for name, section in sections.items()},
        {name: role.llm for name, role in config.roles.items() if role.llm is not None},
        {name: _service_options(section) for name, section in sections.items()},
    )


def embedded_models(config: Config) -> list[str]:
    """Return the models whose weights the run's own llama.cpp servers need, each once."""
    sections = [*([config.llm] if config.llm is not None else []), *config.llms.values()]
    return list(dict.fromkeys(section.model for section in sections if isinstance(section, LlamaCpp)))


def _service_options(section: ServiceSection) -> ServiceOptions:
    routing = (
        {}
        if section.routing is None
        else {
            each.name: value
            for each in fields(section.routing)
            if (value := getattr(section.routing, each.name)) is not None
        }
    )
    return ServiceOptions(
        limits=section.limits, routing=routing, hedge=section.hedge, fallback=section.fallback
    )
