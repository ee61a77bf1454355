"""From a checked `Config` to the runtime objects it describes."""

import os
from collections.abc import Iterable
from pathlib import Path

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
    Simulated,
)
from peerloom.config.money import make_budget, make_cache, make_prices, settle_cache, settle_prices
from peerloom.config.resume import kept_on_resume
from peerloom.config.rules import unknown_roles
from peerloom.config.schema import Config
from peerloom.config.secrets import refuse_secrets
from peerloom.errors import ConfigError
from peerloom.runtime.settings import RoleSettings, RunSettings
from peerloom.services.fleets.service import KEY_VARIABLE, FleetService
from peerloom.services.llm.dialects.anthropic import ANTHROPIC
from peerloom.services.llm.dialects.azure import AZURE
from peerloom.services.llm.dialects.gemini import GEMINI
from peerloom.services.llm.dialects.openai import OPENAI
from peerloom.services.llm.hosted import CallPolicy, HttpService
from peerloom.services.llm.llamacpp import LlamaCppService
from peerloom.services.llm.models import canonical
from peerloom.services.llm.openai import OpenAIService
from peerloom.services.llm.providers import AnthropicService, AzureService, GeminiService
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.scripted import ScriptedService
from peerloom.services.llm.service import LLMService
from peerloom.services.llm.simulated import SimulatedService
from peerloom.services.secret import Secret
from peerloom.source.open import open_source
from peerloom.source.parts import PartsSource
from peerloom.source.urls import is_url

_NO_SHAPE = {
    *("recipe", "source", "sink", "limit", "llm", "roles", "ray", "journal"),
    *("budget", "prices", "cache"),
}


def settle(config: Config, sample: Path | None = None) -> Config:
    """Fill in what depends on the recipe and the environment, so that `run.yaml` says what ran.

    Args:
        config: as the user gave it.
        sample: the recipe's bundled rows, read if no source is given.

    Raises:
        ConfigError: if the environment's server address holds a secret.
        ModelError: if there are no such weights.
    """
    llm = config.llm
    if isinstance(llm, LlamaCpp):
        llm = llm.model_copy(update={"model": canonical(llm.model)})
    if isinstance(llm, Hosted):
        provider = _PROVIDERS[llm.kind]
        found = llm.base_url or os.environ.get(provider.url_env) or provider.url or None
        llm = llm.model_copy(update={"base_url": found})
    # A slot keeps one conversation's prompt in its cache: more of them at once would push each other out.
    suits = llm.slots * llm.replicas if isinstance(llm, LlamaCpp) else RunSettings.in_flight
    settled = config.model_copy(
        update={
            "source": config.source.model_copy(update={"path": _absolute(config.source.path or sample)}),
            "llm": llm,
            "in_flight": config.in_flight or suits,
            "prices": settle_prices(config.prices),
            "cache": settle_cache(config.cache),
        }
    )
    refuse_secrets(settled.model_dump(mode="json"))
    return settled


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


def make_llm(llm: Llm | None, seed: int) -> LLMService:
    """The service of the chosen `llm` group.

    Raises:
        ConfigError: if the group's values cannot work here, e.g. a key that is not set.
    """
    match llm:
        case LlamaCpp():
            return LlamaCppService(**llm.model_dump(exclude={"kind"}))
        case OpenAI() | Azure() | Anthropic() | Gemini():
            return _hosted(llm)
        case Fleet():
            return _fleet(llm)
        case Simulated():
            laws = llm.model_dump(exclude={"kind", "max_retries"})
            return SimulatedService(**laws, seed=seed, retry=Retry(attempts=llm.max_retries + 1))
        case Scripted():
            return ScriptedService(llm.replies, repeat=True)
        case None:
            raise ConfigError("llm=null: no model is chosen: write llm=llamacpp, openai, fleet or simulated")


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
    }
    shape = config.model_dump(exclude=_NO_SHAPE)
    same = kept_on_resume(config).same
    return RunSettings(
        **shape,
        roles=placed,
        address=config.ray.address,
        journal=config.journal == "on",
        budget=make_budget(config.budget),
        prices=make_prices(config.prices),
        cache=make_cache(config.cache, {key: same[key] for key in same if key.startswith("llm.")}),
    )


def _absolute(path: str | Path | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if isinstance(path, tuple):
        return tuple(_absolute_one(each) for each in path)
    return _absolute_one(path) if path is not None else None


def _absolute_one(path: str | Path) -> str:
    text = os.fspath(path)
    return text if is_url(text) else os.path.abspath(os.path.expanduser(text))


def _fleet(llm: Fleet) -> FleetService:
    return FleetService(
        **llm.model_dump(exclude={"kind", "api_key_env", "max_retries"}),
        api_key=_key(llm.api_key_env, KEY_VARIABLE),
        retry=Retry(attempts=llm.max_retries + 1),
    )


def _hosted(llm: Hosted) -> HttpService:
    key = _key(llm.api_key_env, _PROVIDERS[llm.kind].key_env)
    retry = Retry(attempts=llm.max_retries + 1)
    if isinstance(llm, OpenAI):
        own = llm.model_dump(exclude={"kind", "api_key_env", "max_retries"})
        return OpenAIService(**own, api_key=key, retry=retry)
    calls = CallPolicy(timeout=llm.timeout, connect_timeout=llm.connect_timeout, retry=retry)
    own = llm.model_dump(exclude={"kind", "api_key_env", "max_retries", "timeout", "connect_timeout"})
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


_PROVIDERS = {"openai": OPENAI, "azure": AZURE, "anthropic": ANTHROPIC, "gemini": GEMINI}
