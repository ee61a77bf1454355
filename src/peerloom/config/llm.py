"""The keys of each `llm` group: which model answers, and how.

Each class is one group; its `kind` is the group's name on the command line (`llm=openai`).
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from peerloom.config.base import Count, NotNegative, Positive, Section, Share, Whole
from peerloom.services.llm.wire import Structured


class LlamaCpp(Section):
    """The embedded engine: a llama.cpp server that the run starts, watches and stops."""

    kind: Literal["llamacpp"] = "llamacpp"
    model: str = "smollm2-135m"
    """A name that `peerloom models list` prints, or the path of a .gguf file."""
    slots: Count = 8
    """Conversations the server works on at once."""
    context: Count = 2048
    """Tokens each slot holds, prompt and reply together."""
    threads: Count | None = None
    """Threads that compute; by default one for each core."""
    host: str = "127.0.0.1"
    """The address it listens on; another one if peers are on other machines."""


class OpenAI(Section):
    """Any server that speaks OpenAI's chat completions."""

    kind: Literal["openai"] = "openai"
    model: str | None = None
    """The model's name at that server; by default the first that it lists."""
    base_url: str | None = None
    """Where the server is, up to `/v1`; by default `$OPENAI_BASE_URL`, else OpenAI's own."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. The key itself never stands in a configuration."""
    timeout: Positive = 600.0
    """Seconds one attempt may take."""
    connect_timeout: Positive = 10.0
    """Seconds the opening of a connection may take."""
    max_retries: Whole = 7
    """Further attempts at a call that failed for a passing reason."""
    structured: Structured = "auto"
    """How choices and schemas are asked of the server."""
    extra_body: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further keys of every request's body, as the server understands them."""


class Simulated(Section):
    """A seeded stand-in with a real model's timing and faults; see `peerloom.services.llm.laws.Laws`."""

    model_config = ConfigDict(use_attribute_docstrings=True)  # the texts are also options' help

    kind: Literal["simulated"] = "simulated"
    latency: NotNegative = 0.0
    """Seconds a call takes; the median, if spread."""
    latency_sigma: NotNegative = 0.0
    """Spread of the latency, sigma of a lognormal law."""
    tokens_per_second: Positive | None = None
    """Speed of one reply, on top of the latency."""
    tokens: Count = 120
    """Median length of a reply, in tokens of four characters."""
    tokens_sigma: NotNegative = 0.5
    """Spread of the length, sigma of a lognormal law."""
    agreement: Share = 0.8
    """Probability that an answer is the one stated last in the prompt."""
    context: Count | None = None
    """The longest prompt, in tokens."""
    rate_429: Share = 0.0
    """Share of calls refused with 429."""
    rate_5xx: Share = 0.0
    """Share of calls that fail with 503."""
    rate_hang: Share = 0.0
    """Share of calls that get no answer."""
    rate_garbage: Share = 0.0
    """Share of calls answered with a body that is no JSON."""
    rate_truncation: Share = 0.0
    """Share of replies cut in the middle."""
    retry_after: NotNegative = 1.0
    """Seconds that a 429 asks to wait."""
    timeout: Positive = 600.0
    """Seconds after which a call that hangs is tried again."""
    max_retries: Whole = 7
    """Further attempts at a call that failed for a passing reason."""


class Scripted(Section):
    """Replies known beforehand, for tests."""

    kind: Literal["scripted"] = "scripted"
    replies: tuple[str, ...] = ()
    """Given in order, again and again."""


Llm = Annotated[LlamaCpp | OpenAI | Simulated | Scripted, Field(discriminator="kind")]
LLM_GROUPS: dict[str, type[Section]] = {
    "llamacpp": LlamaCpp,
    "openai": OpenAI,
    "simulated": Simulated,
    "scripted": Scripted,
}
