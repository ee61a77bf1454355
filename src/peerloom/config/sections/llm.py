"""Define the keys of each `llm` group, and create the service that they describe.

Each class is one group; its `kind` is the group's name on the command line (`llm=openai`). The group of a
provider behind HTTP is generated from its dialect: it has the dialect's options, and those of `Hosted`.
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
class ServiceSection(Options):
    """The options of every service."""

    kind: Annotated[str, SAME]
    limits: Limits = field(default_factory=Limits)
    routing: _RoutingKeys | None = None
    """How calls are spread over replicas; the default of an omitted key depends on the service."""
    hedge: Hedge | None = None
    """When to send a second request in parallel to a slow one; by default never."""
    fallback: Annotated[str | None, FREE] = None
    """The service (`llm`, or a name in `llms`) that is called while this one is unavailable."""

    @abstractmethod
    def service(self, seed: int) -> LLMService:
        """Return the service that these keys describe.

        Raises:
            ConfigError: if it cannot work here, e.g. because an API key is not set.
        """


@dataclass(frozen=True, kw_only=True)
class Remote(ServiceSection):
    """The options of every service behind HTTP that Peerloom does not run itself."""

    timeout: Annotated[Positive, FREE] = 600.0
    """Seconds that one attempt may take."""
    connect_timeout: Annotated[Positive, FREE] = 10.0
    """Seconds that opening a connection may take."""
    max_retries: Annotated[Whole, FREE] = 7
    """Further attempts at a call that failed for a transient reason."""
    http: Annotated[Http, FREE] = "auto"
    """The HTTP client: `thin` (cheapest, but no proxies), `aiohttp`, or `auto` for the one that suits."""

    @property
    def retry(self) -> Retry:
        """The attempts at each call."""
        return Retry(attempts=self.max_retries + 1)


@dataclass(frozen=True, kw_only=True)
class LlamaCpp(ServiceSection):
    """The embedded engine: llama.cpp servers that the run starts, watches and stops."""

    kind: Annotated[str, SAME] = "llamacpp"
    model: Annotated[str, SAME] = "smollm2-135m"
    """A name that `peerloom models list` prints, the path of a .gguf file, or one on the Hugging Face hub:
    `owner/repository/file.gguf` (`hf:` in front if there is such a path here too)."""
    replicas: Annotated[Count, FREE] = 1
    """The number of servers."""
    slots: Annotated[Count, FREE] = 8
    """The number of conversations that each server processes at once."""
    context: Annotated[Count, FREE] = 2048
    """Tokens that each slot holds, prompt and reply together."""
    threads: Annotated[Count | None, FREE] = None
    """Compute threads on one machine, over all its servers; by default one for each core."""
    placement: Annotated[Placement, FREE] = "driver"
    """Place the servers on the machine that starts the run, or on all nodes of its Ray cluster."""
    host: Annotated[str | None, FREE] = None
    """The address they listen on; by default loopback, with `placement=nodes` each node's own."""

    def service(self, seed: int) -> LlamaCppService:
        """Return the service of the servers."""
        return LlamaCppService(**_own_keys(self, ServiceSection))


@dataclass(frozen=True, kw_only=True)
class Hosted(Remote):
    """A provider behind HTTP, or any server that speaks its dialect."""

    model: Annotated[str | None, SAME] = None
    """The model's or deployment's name; by default the first that the server lists."""
    base_url: Annotated[str | tuple[str, ...] | None, FREE] = None
    """The URL, or a list of replicas; by default from the provider's environment variable, else its own."""
    api_key_env: Annotated[str, FREE]
    """The environment variable that holds the key. The key itself is never written in a configuration."""

    dialect: ClassVar[Callable[..., Dialect]]

    def service(self, seed: int) -> HttpService:
        """Return the service of the provider."""
        dialect = self.dialect(**_own_keys(self, Hosted))
        calls = CallPolicy(
            timeout=self.timeout, connect_timeout=self.connect_timeout, retry=self.retry, http=self.http
        )
        key = _key(self.api_key_env, dialect.provider.key_env)
        return HttpService(dialect, base_url=self.base_url, model=self.model, api_key=key, calls=calls)


def hosted(kind: str, dialect: Any, base: type[Hosted] = Hosted) -> type[Hosted]:
    """Return the group of a provider, generated from its dialect, an options class."""
    own = own_options(dialect)
    keys = [
        ("kind", Annotated[str, SAME], kind),
        ("api_key_env", Annotated[str, FREE], dialect().provider.key_env),
        *((each.name, own[each.name], _redeclared(each)) for each in fields(dialect) if each.name in own),
    ]
    name = dialect.__name__.removesuffix("Dialect")
    return make_dataclass(
        name, keys, bases=(base,), namespace={"dialect": dialect}, frozen=True, kw_only=True
    )


class _OpenAI(Hosted):
    """Any server that speaks OpenAI's chat completions."""

    def service(self, seed: int) -> HttpService:
        """Return OpenAI's service, which detects its server's name for the token limit."""
        keys = _service_arguments(self)
        key = _key(self.api_key_env, self.dialect().provider.key_env)
        return OpenAIService(**keys, api_key=key, retry=self.retry)


@dataclass(frozen=True, kw_only=True)
class Fleet(Remote):
    """A fleet that `peerloom serve up` started, or any other in the directory of fleets."""

    kind: Annotated[str, SAME] = "fleet"
    name: Annotated[str, FREE]
    """The fleet's name, or the path of its file."""
    model: Annotated[str | None, SAME] = None
    """The model that it must serve; by default any."""
    api_key_env: Annotated[str, FREE] = KEY_VARIABLE
    """The environment variable that holds the key, if the fleet requires one."""
    structured: Annotated[Structured, FREE] = "auto"
    """How choices and schemas are requested from the servers."""
    extra_body: Annotated[dict[str, Any], SAME] = field(default_factory=dict[str, Any])
    """Further keys of every request's body, as the servers understand them."""

    def service(self, seed: int) -> FleetService:
        """Return the service of the fleet."""
        key = _key(self.api_key_env, KEY_VARIABLE)
        return FleetService(**_service_arguments(self), api_key=key, retry=self.retry)


@dataclass(frozen=True, kw_only=True)
class Simulated(SimulatorOptions, ServiceSection):
    """A seeded simulated model with the timing and faults of a real one."""

    kind: Annotated[str, SAME] = "simulated"
    timeout: Annotated[Positive, FREE] = 600.0
    """Seconds after which a call that hangs is retried."""
    max_retries: Annotated[Whole, FREE] = 7
    """Further attempts at a call that failed for a transient reason."""

    def service(self, seed: int) -> SimulatedService:
        """Return the service of the simulated model."""
        options = {each.name: getattr(self, each.name) for each in fields(SimulatorOptions)}
        retry = Retry(attempts=self.max_retries + 1)
        return SimulatedService(**options, seed=seed, timeout=self.timeout, retry=retry)


@dataclass(frozen=True, kw_only=True)
class Scripted(ServiceSection):
    """Predefined replies, for tests."""

    kind: Annotated[str, SAME] = "scripted"
    replies: Annotated[tuple[str, ...], SAME] = ()
    """The replies in order, which repeat."""

    def service(self, seed: int) -> ScriptedService:
        """Return the service of the script."""
        return ScriptedService(self.replies, repeat=True)


def _hosted() -> dict[str, type[Hosted]]:
    """Return the groups of the built-in providers: of each module in `providers` with a `DIALECT`."""
    modules = {
        each.name: importlib.import_module(f"{providers.__name__}.{each.name}")
        for each in pkgutil.iter_modules(providers.__path__)
    }
    return {
        name: hosted(name, module.DIALECT, _OpenAI if name == "openai" else Hosted)
        for name, module in modules.items()
        if hasattr(module, "DIALECT")
    }


def _own_keys(section: ServiceSection, base: type[ServiceSection]) -> dict[str, Any]:
    """Return the values of those keys of a section that its base class does not have."""
    common = {each.name for each in fields(base)}
    return {name: value for name, value in asdict(section).items() if name not in common}


def _service_arguments(section: Remote) -> dict[str, Any]:
    """Return the values of those keys that its service takes unchanged."""
    keys = _own_keys(section, ServiceSection)
    return {name: value for name, value in keys.items() if name not in ("api_key_env", "max_retries")}


def _redeclared(declared: "DataclassField[Any]") -> Any:
    """Return a field with the same default, to declare it in another class."""
    return field(default=declared.default, default_factory=declared.default_factory)  # pyright: ignore


def _key(variable: str, usual: str) -> Secret | None:
    """Return the key in an environment variable, which must be set if it is not the usual one."""
    key = Secret.from_env(variable)
    if key is None and variable != usual:
        raise ConfigError(
            f"llm.api_key_env={variable}: that environment variable is not set: export it first"
        )
    return key


LLM_GROUPS: dict[str, type[ServiceSection]] = {
    "llamacpp": LlamaCpp,
    **_hosted(),
    "fleet": Fleet,
    "simulated": Simulated,
    "scripted": Scripted,
}
