"""Define the keys of each `llm` group, and create the service that they describe.

Each class is one group; its `kind` is the group's name on the command line (`llm=openai`). The group of a
provider behind HTTP is generated from its dialect: it has the dialect's options, and those of `Hosted`.

Packages declare further providers as entry points in the group `peerloom.providers`. An entry point, or an
import path as `kind`, refers to the class of a dialect (see `services.llm.providers.dialect`), or to a
`ServiceSection`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peerloom.config.sections.base import optional, own_options, redeclared
from peerloom.errors import ConfigError
from peerloom.lookup.plugins import Plugins
from peerloom.options import FREE, SAME, Options, Positive, Whole
from peerloom.services.fleets.service import KEY_VARIABLE, FleetService
from peerloom.services.llm.client.router import ServiceOptions
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.hosted.service import CallPolicy, HttpService
from peerloom.services.llm.http.endpoint import HttpOptions
from peerloom.services.llm.llamacpp.service import LlamaCppOptions, LlamaCppService
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.scripted import ScriptedService
from peerloom.services.llm.simulated.behavior import SimulatorOptions
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.services.secret import Secret

if TYPE_CHECKING:
    _RoutingKeys = Routing
else:
    _RoutingKeys = optional(Routing)


@dataclass(frozen=True, kw_only=True)
class _Kind(Options):
    kind: Annotated[str, SAME]


@dataclass(frozen=True, kw_only=True)
class ServiceSection(ServiceOptions, _Kind):
    """The options of every service."""

    routing: _RoutingKeys | None = None
    """How calls are spread over replicas; the default of an omitted key depends on the service."""

    @abstractmethod
    def service(self, seed: int) -> LLMService:
        """Return the service that these keys describe.

        Raises:
            ConfigError: if it cannot work here, e.g. because an API key is not set.
        """


@dataclass(frozen=True, kw_only=True)
class _Retried(ServiceSection):
    max_retries: Annotated[Whole, FREE] = 7
    """Further attempts at a call that failed for a transient reason."""

    @property
    def retry(self) -> Retry:
        """The attempts at each call."""
        return Retry(attempts=self.max_retries + 1)


@dataclass(frozen=True, kw_only=True)
class Remote(HttpOptions, _Retried):
    """A service behind HTTP that Peerloom does not run itself; it has the options of its dialect too."""

    model: Annotated[str | None, SAME] = None
    """The model's or deployment's name; by default the first that the server lists, or the fleet's."""
    api_key_env: Annotated[str, FREE]
    """The environment variable that holds the key. The key itself is never written in a configuration."""

    dialect: ClassVar[Callable[..., Dialect]]

    def _arguments(self, usual: str) -> dict[str, Any]:
        """Return the arguments of the service; `usual` is the key's variable that need not be set."""
        http = {each.name: getattr(self, each.name) for each in fields(HttpOptions)}
        calls = CallPolicy(**http, retry=self.retry)
        key = Secret.from_env(self.api_key_env)
        if key is None and self.api_key_env != usual:
            raise ConfigError(
                f"llm.api_key_env={self.api_key_env}: that environment variable is not set: export it first"
            )
        return {"model": self.model, "api_key": key, "calls": calls}


@dataclass(frozen=True, kw_only=True)
class Hosted(Remote):
    """A provider behind HTTP, or any server that speaks its dialect."""

    base_url: Annotated[str | tuple[str, ...] | None, FREE] = None
    """The URL, or a list of replicas; by default from the provider's environment variable, else its own."""

    def service(self, seed: int) -> HttpService:
        """Return the service of the provider."""
        dialect = self.dialect(**_own_keys(self, Hosted))
        return HttpService(dialect, base_url=self.base_url, **self._arguments(dialect.provider.key_env))


@dataclass(frozen=True, kw_only=True)
class Fleet(Remote):
    """A fleet that `peerloom serve up` started, or any other in the directory of fleets."""

    name: Annotated[str, FREE]
    """The fleet's name, or the path of its file."""

    def service(self, seed: int) -> FleetService:
        """Return the service of the fleet."""
        return FleetService(self.name, **self._arguments(KEY_VARIABLE), **_own_keys(self, Fleet))


def remote(kind: str, dialect: Any, base: type[Remote] = Hosted, key_env: str = "") -> type[Remote]:
    """Return the group of a provider, generated from its dialect, an options class."""
    own = own_options(dialect)
    keys = [
        ("kind", Annotated[str, SAME], kind),
        ("api_key_env", Annotated[str, FREE], key_env or dialect().provider.key_env),
        *((each.name, own[each.name], redeclared(each)) for each in fields(dialect) if each.name in own),
    ]
    name = dialect.__name__.removesuffix("Dialect")
    return make_dataclass(
        name, keys, bases=(base,), namespace={"dialect": dialect}, frozen=True, kw_only=True
    )


@dataclass(frozen=True, kw_only=True)
class LlamaCpp(LlamaCppOptions, ServiceSection):
    """The embedded engine: llama.cpp servers that the run starts, watches and stops."""

    kind: Annotated[str, SAME] = "llamacpp"

    def service(self, seed: int) -> LlamaCppService:
        """Return the service of the servers."""
        return LlamaCppService(**_own_keys(self, ServiceSection))


@dataclass(frozen=True, kw_only=True)
class Simulated(SimulatorOptions, _Retried):
    """A seeded simulated model with the timing and faults of a real one."""

    kind: Annotated[str, SAME] = "simulated"
    timeout: Annotated[Positive, FREE] = 600.0
    """Seconds after which a call that hangs is retried."""

    def service(self, seed: int) -> SimulatedService:
        """Return the service of the simulated model."""
        options = {each.name: getattr(self, each.name) for each in fields(SimulatorOptions)}
        return SimulatedService(**options, seed=seed, timeout=self.timeout, retry=self.retry)


@dataclass(frozen=True, kw_only=True)
class Scripted(ServiceSection):
    """Predefined replies, for tests."""

    kind: Annotated[str, SAME] = "scripted"
    replies: Annotated[tuple[str, ...], SAME] = ()
    """The replies in order, which repeat."""

    def service(self, seed: int) -> ScriptedService:
        """Return the service of the script."""
        return ScriptedService(self.replies, repeat=True)


def _own_keys(section: ServiceSection, base: type[ServiceSection]) -> dict[str, Any]:
    """Return the values of those keys of a section that its base class does not have."""
    common = {each.name for each in fields(base)}
    return {name: value for name, value in asdict(section).items() if name not in common}


PROVIDERS = Plugins("llm", "peerloom.providers", "peerloom.services.llm.providers", "DIALECT")
LLM_GROUPS: dict[str, type[ServiceSection]] = {
    "llamacpp": LlamaCpp,
    **{name: remote(name, PROVIDERS.find(name)) for name in PROVIDERS.built_in()},
    "fleet": remote("fleet", OpenAIDialect, Fleet, KEY_VARIABLE),
    "simulated": Simulated,
    "scripted": Scripted,
}


def known_kinds() -> list[str]:
    """Return the names of the built-in groups and of those that installed packages declare."""
    return list(dict.fromkeys([*LLM_GROUPS, *PROVIDERS.names()]))


@cache
def find_group(kind: str) -> type[ServiceSection]:
    """Return the group with that name, or the one at that import path (`package.module:Name`).

    Raises:
        ConfigError: if it does not exist, or is not a group.
    """
    if kind in LLM_GROUPS:
        return LLM_GROUPS[kind]
    if ":" not in kind and kind not in known_kinds():
        raise no_such_kind(kind)
    found = PROVIDERS.find(kind)
    if isinstance(found, type) and issubclass(found, ServiceSection):
        return found
    if isinstance(found, type) and issubclass(found, Options) and hasattr(found, "provider"):
        try:
            return remote(kind, found)
        except TypeError as error:
            raise ConfigError(f"llm={kind}: each option of a dialect needs a default: {error}") from error
    raise ConfigError(f"llm={kind} is no provider: it must be the class of a dialect, with options")


def no_such_kind(kind: str, others: Iterable[str] = ()) -> ConfigError:
    """Return the error for an unknown group, with the most similar name; `others` exist as well."""
    return PROVIDERS.unknown(kind, sorted({*known_kinds(), *others}))
