"""The keys of each `llm` group: which model answers, and how; and the service that they make.

Each class is one group; its `kind` is the group's name on the command line (`llm=openai`). A group of a
provider behind HTTP is made of its dialect: the options of that, and those that all have in common.
"""

import importlib
import pkgutil
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import Field as DataclassField
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peerloom.config.sections.base import optional, own_options
from peerloom.errors import ConfigError
from peerloom.options import FREE, SAME, Count, Options, Positive, Whole
from peerloom.services.fleets.service import KEY_VARIABLE, FleetService
from peerloom.services.llm import providers
from peerloom.services.llm.client.hedge import Hedge
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.hosted.openai import OpenAIService
from peerloom.services.llm.hosted.service import CallPolicy, HttpService
from peerloom.services.llm.http.endpoint import Http
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.llamacpp.service import LlamaCppService, Placement
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.scripted import ScriptedService
from peerloom.services.llm.simulated.behavior import SimulatorOptions
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.services.llm.wire_format.chat import Structured
from peerloom.services.secret import Secret

if TYPE_CHECKING:
    _RoutingKeys = Routing
else:
    _RoutingKeys = optional(Routing)


@dataclass(frozen=True, kw_only=True)
class Served(Options):
    """What every service has."""

    kind: Annotated[str, SAME]
    limits: Limits = field(default_factory=Limits)
    routing: _RoutingKeys | None = None
    """How calls are spread over replicas; what is left out is as suits the service."""
    hedge: Hedge | None = None
    """When a second request is sent beside a slow one; by default never."""
    fallback: Annotated[str | None, FREE] = None
    """The service (`llm`, or a name in `llms`) that is asked when this one is away."""

    @abstractmethod
    def service(self, seed: int) -> LLMService:
        """Make the service that these keys describe.

        Raises:
            ConfigError: if they cannot work here, e.g. for a key that is not set.
        """


@dataclass(frozen=True, kw_only=True)
class Remote(Served):
    """What every service behind HTTP has that somebody else runs."""

    timeout: Annotated[Positive, FREE] = 600.0
    """Seconds one attempt may take."""
    connect_timeout: Annotated[Positive, FREE] = 10.0
    """Seconds the opening of a connection may take."""
    max_retries: Annotated[Whole, FREE] = 7
    """Further attempts at a call that failed for a passing reason."""
    http: Annotated[Http, FREE] = "auto"
    """What carries requests: `thin` (cheapest, but no proxies), `aiohttp`, or whichever will do."""

    @property
    def retry(self) -> Retry:
        """The attempts at each call."""
        return Retry(attempts=self.max_retries + 1)


@dataclass(frozen=True, kw_only=True)
class LlamaCpp(Served):
    """The embedded engine: llama.cpp servers that the run starts, watches and stops."""

    kind: Annotated[str, SAME] = "llamacpp"
    model: Annotated[str, SAME] = "smollm2-135m"
    """A name that `peerloom models list` prints, the path of a .gguf file, or one on the Hugging Face hub:
    `owner/repository/file.gguf` (`hf:` in front if there is such a path here too)."""
    replicas: Annotated[Count, FREE] = 1
    """Servers, side by side."""
    slots: Annotated[Count, FREE] = 8
    """Conversations each server works on at once."""
    context: Annotated[Count, FREE] = 2048
    """Tokens each slot holds, prompt and reply together."""
    threads: Annotated[Count | None, FREE] = None
    """Threads that compute on one machine, over all its servers; by default one for each core."""
    placement: Annotated[Placement, FREE] = "driver"
    """Servers on the machine that starts the run, or over all nodes of its Ray cluster."""
    host: Annotated[str | None, FREE] = None
    """The address they listen on; by default loopback, with `placement=nodes` each node's own."""

    def service(self, seed: int) -> LlamaCppService:
        """Make the servers' service."""
        return LlamaCppService(**_own(self, Served))


@dataclass(frozen=True, kw_only=True)
class Hosted(Remote):
    """A provider behind HTTP, or any server that speaks its dialect."""

    model: Annotated[str | None, SAME] = None
    """The model's name, or the deployment's; by default the first that is listed."""
    base_url: Annotated[str | tuple[str, ...] | None, FREE] = None
    """Where it is, or a list of replicas; by default what the provider's variable says, else its own."""
    api_key_env: Annotated[str, FREE]
    """The environment variable that holds the key. The key itself never stands in a configuration."""

    dialect: ClassVar[Callable[..., Dialect]]

    def service(self, seed: int) -> HttpService:
        """Make the provider's service."""
        spoken = self.dialect(**_own(self, Hosted))
        calls = CallPolicy(
            timeout=self.timeout, connect_timeout=self.connect_timeout, retry=self.retry, http=self.http
        )
        key = _key(self.api_key_env, spoken.provider.key_env)
        return HttpService(spoken, base_url=self.base_url, model=self.model, api_key=key, calls=calls)


def hosted(kind: str, dialect: Any, base: type[Hosted] = Hosted) -> type[Hosted]:
    """Make the group of a provider of its dialect, an options class."""
    own = own_options(dialect)
    keys = [
        ("kind", Annotated[str, SAME], kind),
        ("api_key_env", Annotated[str, FREE], dialect().provider.key_env),
        *((each.name, own[each.name], _fresh(each)) for each in fields(dialect) if each.name in own),
    ]
    name = dialect.__name__.removesuffix("Dialect")
    return make_dataclass(
        name, keys, bases=(base,), namespace={"dialect": dialect}, frozen=True, kw_only=True
    )


class _OpenAI(Hosted):
    """Any server that speaks OpenAI's chat completions."""

    def service(self, seed: int) -> HttpService:
        """Make OpenAI's service, which finds out how its server calls the limit of tokens."""
        keys = {name: value for name, value in _own(self, Served).items() if name not in _OF_THE_KEY}
        key = _key(self.api_key_env, self.dialect().provider.key_env)
        return OpenAIService(**keys, api_key=key, retry=self.retry)


@dataclass(frozen=True, kw_only=True)
class Fleet(Remote):
    """A fleet that `peerloom serve up` keeps, or any other in the directory of fleets."""

    kind: Annotated[str, SAME] = "fleet"
    name: Annotated[str, FREE]
    """Its name, or the path of its file."""
    model: Annotated[str | None, SAME] = None
    """The model it has to serve; by default whatever it does."""
    api_key_env: Annotated[str, FREE] = KEY_VARIABLE
    """The environment variable that holds the key, if the fleet wants one."""
    structured: Annotated[Structured, FREE] = "auto"
    """How choices and schemas are asked of the servers."""
    extra_body: Annotated[dict[str, Any], SAME] = field(default_factory=dict[str, Any])
    """Further keys of every request's body, as the servers understand them."""

    def service(self, seed: int) -> FleetService:
        """Make the fleet's service."""
        keys = {name: value for name, value in _own(self, Served).items() if name not in _OF_THE_KEY}
        return FleetService(**keys, api_key=_key(self.api_key_env, KEY_VARIABLE), retry=self.retry)


@dataclass(frozen=True, kw_only=True)
class Simulated(SimulatorOptions, Served):
    """A seeded stand-in with a real model's timing and faults."""

    kind: Annotated[str, SAME] = "simulated"
    timeout: Annotated[Positive, FREE] = 600.0
    """Seconds after which a call that hangs is tried again."""
    max_retries: Annotated[Whole, FREE] = 7
    """Further attempts at a call that failed for a passing reason."""

    def service(self, seed: int) -> SimulatedService:
        """Make the simulated model."""
        laws = {each.name: getattr(self, each.name) for each in fields(SimulatorOptions)}
        retry = Retry(attempts=self.max_retries + 1)
        return SimulatedService(**laws, seed=seed, timeout=self.timeout, retry=retry)


@dataclass(frozen=True, kw_only=True)
class Scripted(Served):
    """Replies known beforehand, for tests."""

    kind: Annotated[str, SAME] = "scripted"
    replies: Annotated[tuple[str, ...], SAME] = ()
    """Given in order, again and again."""

    def service(self, seed: int) -> ScriptedService:
        """Make the script's service."""
        return ScriptedService(self.replies, repeat=True)


_OF_THE_KEY = {"api_key_env", "max_retries"}


def _hosted() -> dict[str, type[Hosted]]:
    """Return the groups of our own providers: of each module in `providers` that has a `DIALECT`."""
    modules = {
        each.name: importlib.import_module(f"{providers.__name__}.{each.name}")
        for each in pkgutil.iter_modules(providers.__path__)
    }
    return {
        name: hosted(name, module.DIALECT, _OpenAI if name == "openai" else Hosted)
        for name, module in modules.items()
        if hasattr(module, "DIALECT")
    }


def _own(served: Served, without: type[Served]) -> dict[str, Any]:
    """Return the keys of a service that are not of a class that it builds on, nor its kind."""
    common = {each.name for each in fields(without)}
    return {name: value for name, value in asdict(served).items() if name not in common}


def _fresh(declared: "DataclassField[Any]") -> Any:
    """Return a default, to be declared once more."""
    return field(default=declared.default, default_factory=declared.default_factory)  # pyright: ignore


def _key(variable: str, usual: str) -> Secret | None:
    """The key in an environment variable; one that was named on purpose has to be there."""
    key = Secret.from_env(variable)
    if key is None and variable != usual:
        raise ConfigError(
            f"llm.api_key_env={variable}: that environment variable is not set: export it first"
        )
    return key


LLM_GROUPS: dict[str, type[Served]] = {
    "llamacpp": LlamaCpp,
    **_hosted(),
    "fleet": Fleet,
    "simulated": Simulated,
    "scripted": Scripted,
}
