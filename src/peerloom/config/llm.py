"""The keys of each `llm` group: which model answers, and how.

Each class is one group; its `kind` is the group's name on the command line (`llm=openai`).
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from peerloom.config.base import FREE, SAME, Count, NotNegative, Positive, Section, Share, Whole
from peerloom.services.llm.dialects.anthropic import AnthropicStructured
from peerloom.services.llm.dialects.gemini import GeminiStructured
from peerloom.services.llm.endpoint import Http
from peerloom.services.llm.llamacpp import Placement
from peerloom.services.llm.routing import Affinity
from peerloom.services.llm.waits import RetryAfterAs
from peerloom.services.llm.wire import Structured


class Limits(Section):
    """What a provider allows for one key, over all peers of the run."""

    requests_per_minute: Annotated[Positive | None, FREE] = None
    """Attempts, answered or not."""
    tokens_per_minute: Annotated[Positive | None, FREE] = None
    """Tokens of prompts and replies together."""
    concurrency: Annotated[Count | None, FREE] = None
    """Calls under way at once."""
    window_seconds: Annotated[Positive, FREE] = 60.0
    """The time over which the provider counts its minutes."""
    adaptive: Annotated[bool, FREE] = True
    """Go below the limits, or find some, when the provider refuses calls or slows down."""


class Routing(Section):
    """How calls are spread over a service's replicas; what is left out is as suits the service."""

    affinity: Annotated[Affinity | None, FREE] = None
    """What stays on one replica, which has its prefix: a task's calls, a role's, or a role's of a task."""
    imbalance: Annotated[Annotated[float, Field(ge=1)] | None, FREE] = None
    """A preferred replica may have so many times the average of calls under way."""
    eject_after: Annotated[Count | None, FREE] = None
    """Failures in a row after which a replica is left out for a while."""
    eject_seconds: Annotated[Positive | None, FREE] = None
    """How long, the first time; it doubles while the replica goes on failing."""
    eject_cap: Annotated[Positive | None, FREE] = None
    """The longest that it is left out."""


class Hedge(Section):
    """When a second request is sent beside one that is slow; the first reply counts."""

    percentile: Annotated[float, Field(gt=0, lt=1), FREE] = 0.95
    """Of the times that calls have taken; later than that."""
    share: Annotated[float, Field(gt=0, lt=1), FREE] = 0.05
    """Of all calls, at most."""
    after: Annotated[Count, FREE] = 100
    """So many calls must have been seen."""


class Served(Section):
    """What every service has."""

    limits: Limits = Limits()
    routing: Routing | None = None
    """How calls are spread over replicas; by default as suits the service."""
    hedge: Hedge | None = None
    """When a second request is sent beside a slow one; by default never."""
    fallback: Annotated[str | None, FREE] = None
    """The service (`llm`, or a name in `llms`) that is asked when this one is away."""


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
    extra_body: Annotated[dict[str, Any], SAME] = Field(default_factory=dict[str, Any])
    """Further keys of every request's body, as the provider understands them."""


class LlamaCpp(Served):
    """The embedded engine: llama.cpp servers that the run starts, watches and stops."""

    kind: Annotated[Literal["llamacpp"], SAME] = "llamacpp"
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


class OpenAI(Remote):
    """Any server that speaks OpenAI's chat completions."""

    kind: Annotated[Literal["openai"], SAME] = "openai"
    model: Annotated[str | None, SAME] = None
    """The model's name at that server; by default the first that it lists."""
    base_url: Annotated[str | tuple[str, ...] | None, FREE] = None
    """Where it is, up to `/v1`, or a list of replicas; by default `$OPENAI_BASE_URL`, else OpenAI's own."""
    api_key_env: Annotated[str, FREE] = "OPENAI_API_KEY"
    """The environment variable that holds the key. The key itself never stands in a configuration."""
    structured: Annotated[Structured, FREE] = "auto"
    """How choices and schemas are asked of the server."""


class Fleet(Remote):
    """A fleet that `peerloom serve up` keeps, or any other in the directory of fleets."""

    kind: Annotated[Literal["fleet"], SAME] = "fleet"
    name: Annotated[str, FREE]
    """Its name, or the path of its file."""
    model: Annotated[str | None, SAME] = None
    """The model it has to serve; by default whatever it does."""
    api_key_env: Annotated[str, FREE] = "PEERLOOM_FLEET_KEY"
    """The environment variable that holds the key, if the fleet wants one."""
    structured: Annotated[Structured, FREE] = "auto"
    """How choices and schemas are asked of the servers."""


class Azure(Remote):
    """Deployments of Azure OpenAI."""

    kind: Annotated[Literal["azure"], SAME] = "azure"
    model: Annotated[str | None, SAME] = None
    """The deployment's name."""
    base_url: Annotated[str | None, FREE] = None
    """The resource's address, e.g. `https://NAME.openai.azure.com`; by default `$AZURE_OPENAI_ENDPOINT`."""
    api_key_env: Annotated[str, FREE] = "AZURE_OPENAI_API_KEY"
    """The environment variable that holds the key."""
    api_version: Annotated[str, SAME] = "2024-10-21"
    """The interface's version, which goes along with every request."""
    structured: Annotated[Structured, FREE] = "auto"
    """How choices and schemas are asked of the model."""


class Anthropic(Remote):
    """Anthropic's models, by their Messages API."""

    kind: Annotated[Literal["anthropic"], SAME] = "anthropic"
    model: Annotated[str | None, SAME] = None
    """The model's name; by default the first that is listed."""
    base_url: Annotated[str | None, FREE] = None
    """Where the API is, without `/v1`; by default `$ANTHROPIC_BASE_URL`, else Anthropic's own."""
    api_key_env: Annotated[str, FREE] = "ANTHROPIC_API_KEY"
    """The environment variable that holds the key."""
    max_tokens: Annotated[Count, SAME] = 4096
    """The longest reply, where the agent says nothing else: each request has to say it."""
    structured: Annotated[AnthropicStructured, FREE] = "auto"
    """How choices and schemas are asked of the model."""


class Gemini(Remote):
    """Google's models, by the Gemini API."""

    kind: Annotated[Literal["gemini"], SAME] = "gemini"
    model: Annotated[str | None, SAME] = None
    """The model's name; by default the first that is listed."""
    base_url: Annotated[str | None, FREE] = None
    """Where the API is, without `/v1beta`; by default `$GOOGLE_GEMINI_BASE_URL`, else Google's own."""
    api_key_env: Annotated[str, FREE] = "GEMINI_API_KEY"
    """The environment variable that holds the key."""
    structured: Annotated[GeminiStructured, FREE] = "auto"
    """How choices and schemas are asked of the model."""


class Simulated(Served):
    """A seeded stand-in with a real model's timing and faults; see `peerloom.services.llm.laws.Laws`."""

    model_config = ConfigDict(use_attribute_docstrings=True)  # the texts are also options' help

    kind: Annotated[Literal["simulated"], SAME] = "simulated"
    latency: Annotated[NotNegative, FREE] = 0.0
    """Seconds a call takes; the median, if spread."""
    latency_sigma: Annotated[NotNegative, FREE] = 0.0
    """Spread of the latency, sigma of a lognormal law."""
    tokens_per_second: Annotated[Positive | None, FREE] = None
    """Speed of one reply, on top of the latency."""
    tokens: Annotated[Count, SAME] = 120
    """Median length of a reply, in tokens of four characters."""
    tokens_sigma: Annotated[NotNegative, SAME] = 0.5
    """Spread of the length, sigma of a lognormal law."""
    agreement: Annotated[Share, SAME] = 0.8
    """Probability that an answer is the one stated last in the prompt."""
    context: Annotated[Count | None, FREE] = None
    """The longest prompt, in tokens."""
    prefix_cache: Annotated[Count | None, FREE] = None
    """Tokens that the prefix cache holds; by default, all that precedes a prompt's last message."""
    prefill_tokens_per_second: Annotated[Positive | None, FREE] = None
    """Speed of reading what of a prompt is not cached, on top of the latency."""
    rate_reasoning: Annotated[Share, SAME] = 0.0
    """Share of replies with thoughts before them."""
    rate_429: Annotated[Share, FREE] = 0.0
    """Share of calls refused with 429."""
    rate_5xx: Annotated[Share, FREE] = 0.0
    """Share of calls that fail with 503."""
    rate_hang: Annotated[Share, FREE] = 0.0
    """Share of calls that get no answer."""
    rate_garbage: Annotated[Share, FREE] = 0.0
    """Share of calls answered with a body that is no JSON."""
    rate_truncation: Annotated[Share, FREE] = 0.0
    """Share of replies cut in the middle."""
    rate_half_closed: Annotated[Share, FREE] = 0.0
    """Share of calls whose connection is closed before or within the head of the answer."""
    rate_slow: Annotated[Share, FREE] = 0.0
    """Share of replies that trickle in pieces."""
    rate_cut: Annotated[Share, FREE] = 0.0
    """Share of calls whose connection is closed within the body of the answer."""
    rate_content_type: Annotated[Share, FREE] = 0.0
    """Share of calls answered by an HTML page, with status 200."""
    slow_seconds: Annotated[NotNegative, FREE] = 1.0
    """Seconds that a slow reply trickles."""
    retry_after: Annotated[NotNegative, FREE] = 1.0
    """Seconds that a 429 asks to wait, unless a limit says when it will do."""
    retry_after_as: Annotated[RetryAfterAs, FREE] = "seconds"
    """How a 429 states that wait: whole seconds, no header, decimals, an HTTP date, words, or a year."""
    storm_every: Annotated[Positive | None, FREE] = None
    """Seconds from one storm, in which all calls get 429, to the next."""
    storm_seconds: Annotated[NotNegative, FREE] = 5.0
    """Seconds that a storm lasts."""
    limit_rpm: Annotated[Count | None, FREE] = None
    """Calls let in within any window of limit_window seconds."""
    limit_tpm: Annotated[Count | None, FREE] = None
    """Tokens, of prompts and replies together, let in within any such window."""
    limit_concurrency: Annotated[Count | None, FREE] = None
    """Calls at once."""
    limit_window: Annotated[Positive, FREE] = 60.0
    """Seconds that limit_rpm and limit_tpm are counted over."""
    timeout: Annotated[Positive, FREE] = 600.0
    """Seconds after which a call that hangs is tried again."""
    max_retries: Annotated[Whole, FREE] = 7
    """Further attempts at a call that failed for a passing reason."""


class Scripted(Served):
    """Replies known beforehand, for tests."""

    kind: Annotated[Literal["scripted"], SAME] = "scripted"
    replies: Annotated[tuple[str, ...], SAME] = ()
    """Given in order, again and again."""


Hosted = OpenAI | Azure | Anthropic | Gemini
Llm = Annotated[
    LlamaCpp | OpenAI | Azure | Anthropic | Gemini | Fleet | Simulated | Scripted, Field(discriminator="kind")
]
LLM_GROUPS: dict[str, type[Served]] = {
    "llamacpp": LlamaCpp,
    "openai": OpenAI,
    "azure": Azure,
    "anthropic": Anthropic,
    "gemini": Gemini,
    "fleet": Fleet,
    "simulated": Simulated,
    "scripted": Scripted,
}
