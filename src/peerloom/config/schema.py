"""Every key of a run's configuration: its type, its default, and below it what it means."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast

from pydantic import BeforeValidator, Discriminator, Field, SerializeAsAny, Tag

from peerloom.config.sections.base import Section
from peerloom.config.sections.llm import LLM_GROUPS, Served
from peerloom.config.sections.money import Cache, Given
from peerloom.options import FREE, MAY_GROW, SAME, Count, FailedShare, NotNegative, Positive, Whole
from peerloom.runtime.transport.compression import Compress
from peerloom.services.llm.usage.budget import Budget
from peerloom.source.open import Format


def llm_of(groups: Mapping[str, type[Served]]) -> Any:
    """Return the type of a section that is of one of these groups, as its `kind` says."""
    tagged = tuple(Annotated[group, Tag(kind)] for kind, group in groups.items())
    return Annotated[Union[tagged], Discriminator(_kind_of)]  # noqa: UP007


def _kind_of(section: Any) -> Any:
    if isinstance(section, dict):
        return cast("dict[str, Any]", section).get("kind")
    return getattr(section, "kind", None)


if TYPE_CHECKING:
    Llm = Served
else:
    Llm = llm_of(LLM_GROUPS)


class Recipe(Section):
    """Which recipe, beside that recipe's own options (see `load.check`)."""

    name: Annotated[str | None, SAME] = None
    """A recipe's name or import path; None for a workflow given in Python."""


class Source(Section):
    """Where the input rows come from."""

    path: Annotated[str | tuple[str, ...] | None, FREE] = None
    """What to read, or a list; by default the recipe's sample. Files by path or URL (JSONL, also .gz or .zst,
    Parquet, .txt, .md, .html), patterns with `*`, a folder of documents, a finished run's directory,
    `hf://datasets/owner/name?split=train`."""
    key: Annotated[str | None, SAME] = None
    """The field of a row that is its label in the output."""
    field: Annotated[str | None, SAME] = None
    """The field, dotted, of what is read that is the row, e.g. `result`; a text becomes `{"text": ...}`."""
    format: Annotated[Format, SAME] = "auto"
    """What `path` is, where that is not to be guessed."""


class Sink(Section):
    """What becomes of the finished rows, beside the JSONL that a run writes as it goes."""

    format: Annotated[Literal["jsonl", "parquet"], FREE] = "jsonl"
    """With `parquet`, a session also leaves `data.parquet` (and `rejected.parquet`) at its end."""


class Role(Section):
    """What one role has of its own."""

    llm: Annotated[str | None, SAME] = None
    """The service that it asks, a name in `llms`; by default `llm`."""
    replicas: Annotated[Count | None, FREE] = None
    """With `placement=spread`, peers that play this role; as many as `peers` says by default, else 1."""
    resources: Annotated[dict[str, NotNegative], FREE] = Field(default_factory=dict[str, float])
    """With `placement=spread`, Ray resources that each of those peers needs, e.g. `num_gpus: 1`."""

    @property
    def placed(self) -> bool:
        """Whether it says where its peers are to be."""
        return self.replicas is not None or bool(self.resources)


class AgentOptions(Section):
    """What one agent may do."""

    timeout: Annotated[Positive | None, FREE] = None
    """Seconds that a turn may take, not counting the time in which its calls are answered; then its task
    fails, reason `agent_timeout`."""


class Ray(Section):
    """The Ray cluster, with `engine=ray`."""

    address: Annotated[str | None, FREE] = None
    """An existing cluster; by default `$RAY_ADDRESS`, else a cluster started for this run."""


def _switch(value: object) -> object:
    """What YAML makes of `on` and `off`, as it was written."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class Config(Section):
    """A whole run."""

    recipe: SerializeAsAny[Recipe] = Recipe()
    source: Source = Source()
    sink: Sink = Sink()
    limit: Annotated[Count | None, MAY_GROW] = None
    """Read the first rows only, by position."""
    trials: Annotated[Count, SAME] = 1
    """How often each row is run."""
    seed: Annotated[Whole, SAME] = 0
    """Makes the run's choices, and sampling where the server can, the same again."""
    llm: Llm | None = Field(default=None)
    """Which model answers; None if a service was given in Python."""
    llms: dict[str, Llm] = Field(default_factory=dict[str, Any])
    """Further services by name, for `roles.<name>.llm` and `fallback`; keys as in `llm`, with `kind`."""
    budget: Budget = Budget()
    prices: Annotated[Given, FREE] = None
    """What tokens cost: `genai` (needs `peerloom[prices]`), a YAML or JSON file, or what would be in it."""
    cache: Cache = Cache()
    engine: Annotated[Literal["ray", "local"], FREE] = "ray"
    """Peers are Ray actors, or tasks of this one process."""
    placement: Annotated[Literal["packed", "spread"], FREE] = "packed"
    """Every peer hosts all roles, or each role has peers of its own."""
    peers: Annotated[Count | None, FREE] = None
    """Peers in all (packed), or for each role (spread); by default chosen to suit the machine."""
    in_flight: Annotated[Count | None, FREE] = None
    """Tasks admitted at once; by default what suits the model."""
    partitions: Annotated[Count, FREE] = 1
    """Feeders that read the input side by side."""
    shards: Annotated[Count, SAME] = 1
    """Sinks that write rows side by side."""
    roles: dict[str, Role] = Field(default_factory=dict[str, Role])
    agents: dict[str, AgentOptions] = Field(default_factory=dict[str, AgentOptions])
    """Of the agent in each role."""
    ray: Ray = Ray()
    max_failed: Annotated[Whole | FailedShare | None, FREE] = None
    """Failed rows (a whole number) or share of failed rows (0.2) above which a run stops; by default it stops
    when its first 20 rows all failed. With 1.0 it is never stopped."""
    heartbeat_seconds: Annotated[Positive, FREE] = 1.0
    """How often a process is asked for a sign of life."""
    suspect_seconds: Annotated[Positive, FREE] = 10.0
    """Silence after which a process is taken for dead, and killed."""
    deliver_seconds: Annotated[Positive, FREE] = 30.0
    """Time a delivery may stay unanswered before its receiver is suspected."""
    journal: Annotated[Literal["on", "off"], BeforeValidator(_switch), FREE] = "on"
    """Keep finished turns and calls of tasks in flight on disk, so that none is paid again after a death."""
    compress: Annotated[Compress, FREE] = "auto"
    """Compress what processes send each other: to other hosts, `always`, or `never`."""
    histories: Annotated[NotNegative, FREE] = 128
    """Megabytes in which each peer remembers large tasks, so that only new turns travel to it; 0 is none."""
