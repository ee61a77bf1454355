"""From the sections that describe services to the services."""

from collections.abc import Mapping

from peerloom.config.llm import (
    Anthropic,
    Azure,
    Fleet,
    Gemini,
    Hosted,
    LlamaCpp,
    Llm,
    OpenAI,
    Scripted,
    Served,
    Simulated,
)
from peerloom.config.schema import Config
from peerloom.errors import ConfigError
from peerloom.services.fleets.service import KEY_VARIABLE, FleetService
from peerloom.services.llm.dialects.anthropic import ANTHROPIC
from peerloom.services.llm.dialects.azure import AZURE
from peerloom.services.llm.dialects.gemini import GEMINI
from peerloom.services.llm.dialects.openai import OPENAI
from peerloom.services.llm.hedge import Hedge
from peerloom.services.llm.hosted import CallPolicy, HttpService
from peerloom.services.llm.limits.division import Limits
from peerloom.services.llm.lineup import DEFAULT, Lineup, Terms
from peerloom.services.llm.llamacpp import LlamaCppService
from peerloom.services.llm.openai import OpenAIService
from peerloom.services.llm.providers import AnthropicService, AzureService, GeminiService
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.scripted import ScriptedService
from peerloom.services.llm.service import LLMService
from peerloom.services.llm.simulated import SimulatedService
from peerloom.services.secret import Secret

PROVIDERS = {"openai": OPENAI, "azure": AZURE, "anthropic": ANTHROPIC, "gemini": GEMINI}
_TERMS = {"kind", "limits", "routing", "hedge", "fallback"}
_HOW = ("timeout", "connect_timeout", "max_retries", "http")


def make_lineup(config: Config) -> LLMService:
    """The services of a run.

    Raises:
        ConfigError: if there is none, or a section's values cannot work here, e.g. a key that is not set.
    """
    if config.llm is None:
        raise ConfigError("llm=null: no model is chosen: write llm=llamacpp, openai, fleet or simulated")
    sections: Mapping[str, Llm] = {DEFAULT: config.llm, **config.llms}
    return Lineup(
        {name: make_llm(section, config.seed) for name, section in sections.items()},
        {name: role.llm for name, role in config.roles.items() if role.llm is not None},
        {name: _terms(section) for name, section in sections.items()},
    )


def embedded_models(config: Config) -> list[str]:
    """The models whose weights the run's own llama.cpp servers need, each once."""
    sections = [*([config.llm] if config.llm is not None else []), *config.llms.values()]
    return list(dict.fromkeys(section.model for section in sections if isinstance(section, LlamaCpp)))


def make_llm(llm: Llm, seed: int) -> LLMService:
    """The service that a section describes.

    Raises:
        ConfigError: if the group's values cannot work here, e.g. a key that is not set.
    """
    match llm:
        case LlamaCpp():
            return LlamaCppService(**llm.model_dump(exclude=_TERMS))
        case OpenAI() | Azure() | Anthropic() | Gemini():
            return _hosted(llm)
        case Fleet():
            return _fleet(llm)
        case Simulated():
            laws = llm.model_dump(exclude=_TERMS | {"max_retries"})
            return SimulatedService(**laws, seed=seed, retry=Retry(attempts=llm.max_retries + 1))
        case Scripted():
            return ScriptedService(llm.replies, repeat=True)


def _terms(section: Served) -> Terms:
    return Terms(
        limits=Limits(**section.limits.model_dump()),
        routing=section.routing.model_dump(exclude_none=True) if section.routing is not None else {},
        hedge=Hedge(**section.hedge.model_dump()) if section.hedge is not None else None,
        fallback=section.fallback,
    )


def _fleet(llm: Fleet) -> FleetService:
    return FleetService(
        **llm.model_dump(exclude=_TERMS | {"api_key_env", "max_retries"}),
        api_key=_key(llm.api_key_env, KEY_VARIABLE),
        retry=Retry(attempts=llm.max_retries + 1),
    )


def _hosted(llm: Hosted) -> HttpService:
    key = _key(llm.api_key_env, PROVIDERS[llm.kind].key_env)
    retry = Retry(attempts=llm.max_retries + 1)
    if isinstance(llm, OpenAI):
        own = llm.model_dump(exclude=_TERMS | {"api_key_env", "max_retries"})
        return OpenAIService(**own, api_key=key, retry=retry)
    calls = CallPolicy(timeout=llm.timeout, connect_timeout=llm.connect_timeout, retry=retry, http=llm.http)
    own = llm.model_dump(exclude=_TERMS | {"api_key_env", *_HOW})
    match llm:
        case Azure():
            return AzureService(**own, api_key=key, calls=calls)
        case Anthropic():
            return AnthropicService(**own, api_key=key, calls=calls)
        case Gemini():
            return GeminiService(**own, api_key=key, calls=calls)


def _key(variable: str, usual: str) -> Secret | None:
    """The key in an environment variable; one that was named on purpose has to be there."""
    key = Secret.from_env(variable)
    if key is None and variable != usual:
        raise ConfigError(
            f"llm.api_key_env={variable}: that environment variable is not set: export it first"
        )
    return key
