"""Define every key of a run's configuration: its type, its default, and its meaning in the string below."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast

from pydantic import BeforeValidator, Discriminator, Field, SerializeAsAny, Tag

from peerloom.config.sections.base import Section
from peerloom.config.sections.llm import LLM_GROUPS, ServiceSection
from peerloom.config.sections.money import Cache, PricesValue
from peerloom.options import FREE, MAY_GROW, SAME, Count, FailedShare, NotNegative, Positive, Whole
from peerloom.runtime.transport.compression import Compress
from peerloom.services.llm.usage.budget import Budget
from peerloom.source.open import Format


def llm_of(groups: Mapping[str, type[ServiceSection]]) -> Any:
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
    Llm = llm_of(LLM_GROUPS)


class RecipeSection(Section):
    """The recipe; `load.check` adds the recipe's own options."""

    name: Annotated[str | None, SAME] = None
    """A recipe's name or import path; None for a workflow given in Python."""


class SourceSection(Section):
    """The origin of the input rows."""

    path: Annotated[str | tuple[str, ...] | None, FREE] = None
    """The input, or a list of inputs; by default the recipe's sample. Files by path or URL (JSONL, also .gz
    or .zst, Parquet, .txt, .md, .html), patterns with `*`, a folder of documents, a finished run's directory,
    `hf://datasets/owner/name?split=train`."""
    key: Annotated[str | None, SAME] = None
    """The field of a row that is its label in the output."""
    field: Annotated[str | None, SAME] = None
    """The dotted field of an input record that is the row, e.g. `result`; a text becomes `{"text": ...}`."""
    format: Annotated[Format, SAME] = "auto"
    """The format of `path`, if it is not to be detected."""


class Sink(Section):
    """The output of finished rows, in addition to the JSONL that a run writes continuously."""

    format: Annotated[Literal["jsonl", "parquet"], FREE] = "jsonl"
    """With `parquet`, a session also writes `data.parquet` (and `rejected.parquet`) at its end."""


class Role(Section):
    """The settings of one role."""

    llm: Annotated[str | None, SAME] = None
    """The service that it calls, a name in `llms`; by default `llm`."""
    replicas: Annotated[Count | None, FREE] = None
    """With `placement=spread`, the number of peers with this role; by default `peers`, else 1."""
    resources: Annotated[dict[str, NotNegative], FREE] = Field(default_factory=dict[str, float])
    """With `placement=spread`, Ray resources that each of those peers needs, e.g. `num_gpus: 1`."""

    @property
    def placed(self) -> bool:
        """Whether the role sets the number or the resources of its peers."""
        return self.replicas is not None or bool(self.resources)


class AgentOptions(Section):
    """The limits of one agent."""

    timeout: Annotated[Positive | None, FREE] = None
    """Seconds that a turn may take, without the time spent waiting for its calls; then its task fails, reason
    `agent_timeout`."""


class Ray(Section):
    """The Ray cluster, with `engine=ray`."""

    address: Annotated[str | None, FREE] = None
    """An existing cluster; by default `$RAY_ADDRESS`, else a cluster started for this run."""


def _switch(value: object) -> object:
    """Return `on` or `off` for the booleans that YAML makes of these words."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class Config(Section):
    """The configuration of a run."""

    recipe: SerializeAsAny[RecipeSection] = RecipeSection()
    source: SourceSection = SourceSection()
    sink: Sink = Sink()
    limit: Annotated[Count | None, MAY_GROW] = None
    """Read the first rows only, by position."""
    trials: Annotated[Count, SAME] = 1
    """The number of times each row is run."""
    seed: Annotated[Whole, SAME] = 0
    """The seed that makes the run's choices reproducible, and sampling too if the server supports it."""
    llm: Llm | None = Field(default=None)
    """The model that answers; None if a service was given in Python."""
    llms: dict[str, Llm] = Field(default_factory=dict[str, Any])
    """Further services by name, for `roles.<name>.llm` and `fallback`; keys as in `llm`, with `kind`."""
    budget: Budget = Budget()
    prices: Annotated[PricesValue, FREE] = None
    """The prices of tokens: `genai` (needs `peerloom[prices]`), a YAML or JSON file, or its content."""
    cache: Cache = Cache()
    engine: Annotated[Literal["ray", "local"], FREE] = "ray"
    """Peers are Ray actors, or tasks of this one process."""
    placement: Annotated[Literal["packed", "spread"], FREE] = "packed"
    """Every peer hosts all roles, or each role has its own peers."""
    peers: Annotated[Count | None, FREE] = None
    """The number of peers in all (packed), or for each role (spread); the default depends on the machine."""
    in_flight: Annotated[Count | None, FREE] = None
    """The number of tasks in flight; the default depends on the model."""
    partitions: Annotated[Count, FREE] = 1
    """The number of feeders that read the input in parallel."""
    shards: Annotated[Count, SAME] = 1
    """The number of sinks that write rows in parallel."""
    roles: dict[str, Role] = Field(default_factory=dict[str, Role])
    agents: dict[str, AgentOptions] = Field(default_factory=dict[str, AgentOptions])
    """The options of the agent in each role."""
    ray: Ray = Ray()
    max_failed: Annotated[Whole | FailedShare | None, FREE] = None
    """Number (a whole number) or share (0.2) of failed rows above which a run stops; by default it stops if
    its first 20 rows all failed. With 1.0 it never stops."""
    heartbeat_seconds: Annotated[Positive, FREE] = 1.0
    """The interval at which a process is asked for a heartbeat."""
    suspect_seconds: Annotated[Positive, FREE] = 10.0
    """Silence after which a process is considered dead, and killed."""
    deliver_seconds: Annotated[Positive, FREE] = 30.0
    """Time that a delivery may stay unanswered before its receiver is suspected."""
    journal: Annotated[Literal["on", "off"], BeforeValidator(_switch), FREE] = "on"
    """Write finished turns and calls of tasks in flight to disk, so that none is paid again after a crash."""
    compress: Annotated[Compress, FREE] = "auto"
    """Compress messages between processes: only to other hosts (`auto`), `always`, or `never`."""
    histories: Annotated[NotNegative, FREE] = 128
    """Megabytes of large tasks that each peer caches, so that it is sent only new turns; 0 disables it."""
