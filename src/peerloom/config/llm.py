"""The keys of each `llm` group: which model answers, and how.

Each class is one group; its `kind` is the group's name on the command line (`llm=openai`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from peerloom.config.base import Count, NotNegative, Seconds, Section, Whole


class LlamaCpp(Section):
    """The embedded engine: a llama.cpp server that the run starts, watches and stops."""

    kind: Literal["llamacpp"] = "llamacpp"
    model: str = "smollm2-135m"
    """A name that `peerloom models list` prints, or the path of a .gguf file."""
    slots: Count = 4
    """Conversations the server works on at once."""
    context: Count = 2048
    """Tokens each slot holds, prompt and reply together."""
    threads: Count | None = None
    """Threads that compute; by default one for each core."""


class OpenAI(Section):
    """Any server that speaks OpenAI's chat completions."""

    kind: Literal["openai"] = "openai"
    model: str
    """The model's name at that server."""
    base_url: str | None = None
    """Where the server is, up to `/v1`; by default `$OPENAI_BASE_URL`, else OpenAI's own."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. The key itself never stands in a configuration."""
    timeout: Seconds = 600.0
    """Seconds one call may take."""
    max_retries: Whole = 6
    """Further tries after a call that failed for a passing reason."""
    structured: Literal["auto", "json_schema", "json_object", "none"] = "auto"
    """How choices and schemas are asked of the server; `auto` finds out."""
    extra_body: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further keys of every request's body, as the server understands them."""


class Simulated(Section):
    """A seeded stand-in with a real model's timing: the reply depends on request and seed alone."""

    kind: Literal["simulated"] = "simulated"
    latency: NotNegative = 0.0
    """Seconds before a reply begins."""
    tokens_per_second: NotNegative = 0.0
    """Speed of one reply after that; 0 is at once."""


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
