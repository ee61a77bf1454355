"""Define the keys of a run's configuration: its type, its default, and its meaning in the string below.

The keys that the runtime or a service reads as they are stand beside their reader.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast

from pydantic import BeforeValidator, Discriminator, Tag, TypeAdapter

from peerloom.config.sections.llm import LLM_GROUPS, ServiceSection
from peerloom.options import FREE, MAY_GROW, SAME, Count, Options, Positive
from peerloom.runtime.settings import RoleSettings, RunKeys
from peerloom.services.leased.service import StatefulOptions
from peerloom.services.llm.cache.client import Cache

PricesValue = str | dict[str, Any] | None
"""Prices: `genai`, a file, or its content."""


def one_of(groups: Mapping[str, type[Options]]) -> Any:
    """Return the type of a section of one of these groups, which its `kind` selects."""
    tagged = tuple(Annotated[group, Tag(kind)] for kind, group in groups.items())
    return Annotated[Union[tagged], Discriminator(_kind_of)]  # noqa: UP007


def _kind_of(section: Any) -> Any:
    if isinstance(section, dict):
        return cast("dict[str, Any]", section).get("kind")
    return getattr(section, "kind", None)


if TYPE_CHECKING:
    Llm = ServiceSection
else:
    Llm = one_of(LLM_GROUPS)


@dataclass(frozen=True, kw_only=True)
class RecipeSection(Options):
    """The recipe; `load.check` adds the recipe's own options."""

    name: Annotated[str | None, SAME] = None
    """A recipe's name or import path; None for a workflow given in Python."""


@dataclass(frozen=True, kw_only=True)
class SourceSection(Options):
    """The origin of the input rows; `load.check` adds the format's own options."""

    path: Annotated[str | tuple[str, ...] | None, FREE] = None
    """The input, or a list of inputs; by default the recipe's sample. Files by path or URL (JSONL, JSON, CSV,
    Parquet, Arrow, .txt, .md, .html), patterns with `*`, a folder of documents, a finished run's directory,
    the clone of a data set, `hf://datasets/owner/name?split=train`."""
    key: Annotated[str | None, SAME] = None
    """The field of a row that is its label in the output."""
    field: Annotated[str | None, SAME] = None
    """The dotted field of an input record that is the row, e.g. `result`; a text becomes `{"text": ...}`."""
    license: Annotated[str | None, FREE] = None
    """The license of the input, for the provenance of rows and the card, e.g. `cc-by-4.0`."""
    format: Annotated[str, SAME] = "auto"
    """The format of `path`, if it is not to be detected, or the import path of a `SourceFormat`."""


@dataclass(frozen=True, kw_only=True)
class Sink(Options):
    """The output of finished rows, in addition to the JSONL that a run writes continuously."""

    format: Annotated[str, FREE] = "jsonl"
    """With another format than `jsonl`, such as `parquet`, a session also writes `data.parquet` (and
    `rejected.parquet`) at its end."""


@dataclass(frozen=True)
class Role(RoleSettings):
    """The settings of one role."""

    llm: Annotated[str | None, SAME] = None
    """The service that it calls, a name in `llms`; by default `llm`."""

    @property
    def placed(self) -> bool:
        """Whether the role sets the number or the resources of its peers."""
        return self.replicas is not None or bool(self.resources)


@dataclass(frozen=True, kw_only=True)
class AgentOptions(Options):
    """The limits of one agent."""

    timeout: Annotated[Positive | None, FREE] = None
    """Seconds that a turn may take, without the time spent waiting for its calls; then its task fails, reason
    `agent_timeout`."""


@dataclass(frozen=True, kw_only=True)
class Ray(Options):
    """The Ray cluster, with `engine=ray`."""

    address: Annotated[str | None, FREE] = None
    """An existing cluster; by default `$RAY_ADDRESS`, else a cluster started for this run."""


def _switch(value: object) -> object:
    """Return `on` or `off` for the booleans that YAML makes of these words."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


@dataclass(frozen=True, kw_only=True)
class Config(RunKeys):
    """The configuration of a run; `load.check` adds the options of its recipe, source, and services."""

    recipe: RecipeSection = field(default_factory=RecipeSection)
    source: SourceSection = field(default_factory=SourceSection)
    sink: Sink = field(default_factory=Sink)
    limit: Annotated[Count | None, MAY_GROW] = None
    """Read the first rows only, by position."""
    llm: Llm | None = None
    """The model that answers; None if a service was given in Python."""
    llms: dict[str, Llm] = field(default_factory=dict[str, Any])
    """Further services by name, for `roles.<name>.llm` and `fallback`; keys as in `llm`, with `kind`."""
    services: dict[str, StatefulOptions] = field(default_factory=dict[str, Any])
    """Services besides language models, by name. `kind` is a built-in one (`kv`), or an import path."""
    prices: Annotated[PricesValue, FREE] = None
    """The prices of tokens: `genai` (needs `peerloom[prices]`), a YAML or JSON file, or its content."""
    cache: Cache = field(default_factory=Cache)
    in_flight: Annotated[Count | None, FREE] = None
    """The number of tasks in flight; the default depends on the model."""
    roles: dict[str, Role] = field(default_factory=dict[str, Role])
    agents: dict[str, AgentOptions] = field(default_factory=dict[str, AgentOptions])
    """The options of the agent in each role."""
    ray: Ray = field(default_factory=Ray)
    journal: Annotated[Literal["on", "off"], BeforeValidator(_switch), FREE] = "on"
    """Write finished turns and calls of tasks in flight to disk, so that none is paid again after a crash."""

    def plain(self) -> dict[str, Any]:
        """Return all keys with their values as JSON types."""
        values = TypeAdapter(type(self)).dump_python(self, mode="json")
        return {name: values[name] for name in Config.__annotations__} | values
