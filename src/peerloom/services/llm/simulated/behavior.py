"""The laws a simulated model obeys: what it says, how long it takes, when it fails.

All are pure functions of the request (messages and parameters), the seed and, for faults, how often
that request has been tried. Nothing depends on time or order, so a run gives the same rows in one
process or many, over HTTP or without. What does depend on them (limits, storms, a cache) is `provider`'s:
it decides when a reply comes, never what it says.
"""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from statistics import NormalDist
from typing import Annotated, Any, Literal, NamedTuple

import orjson

from peerloom.errors import ConfigError
from peerloom.options import FREE, SAME, Count, NotNegative, Options, Positive, Share
from peerloom.services.llm.simulated import opinion
from peerloom.services.llm.simulated.instances import UnsupportedSchema, instance
from peerloom.services.llm.simulated.prose import prose
from peerloom.services.llm.simulated.request import (
    CHARS_PER_TOKEN,
    BadRequest,
    SimulatedEmbedRequest,
    SimulatedRequest,
    Tool,
)
from peerloom.services.llm.simulated.waits import RetryAfterAs
from peerloom.services.llm.wire_format.chat import unwrap

Fault = Literal[
    "", "429", "5xx", "hang", "garbage", "truncation", "half_closed", "slow", "cut", "content_type"
]
REPLIES: frozenset[Fault] = frozenset({"", "truncation", "slow"})
"""With these the client gets a reply all the same."""

_LONGEST = 32_768  # tokens
_NORMAL = NormalDist()
_TRY = struct.Struct("<IQ")
_LENGTH, _LATENCY, _WORDS, _AGREE, _PICK, _SCHEMA, _FAULT, _THOUGHT = range(8)  # whose an ask's draws are


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions(Options):
    """How a simulated model behaves: a real model's timing and faults."""

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(rate for _, rate in self.fault_rates) > 1.0:
            raise ConfigError("the llm.rate_* of faults add up to more than 1: they are shares of all calls")
        if self.storm_every is not None and self.storm_seconds >= self.storm_every:
            raise ConfigError(
                f"llm.storm_seconds is {self.storm_seconds}: it must be less than llm.storm_every, "
                f"{self.storm_every}, or nothing is ever answered"
            )

    @cached_property
    def fault_rates(self) -> tuple[tuple[Fault, float], ...]:
        """Each fault and its share of calls."""
        return (
            ("429", self.rate_429),
            ("5xx", self.rate_5xx),
            ("hang", self.rate_hang),
            ("garbage", self.rate_garbage),
            ("truncation", self.rate_truncation),
            ("half_closed", self.rate_half_closed),
            ("slow", self.rate_slow),
            ("cut", self.rate_cut),
            ("content_type", self.rate_content_type),
        )


@dataclass(frozen=True, kw_only=True)
class SimulatedBehavior(SimulatorOptions):
    """A simulated model; another `seed` is another model."""

    seed: int = 0


class SimulatedReply(NamedTuple):
    """What the model says, and what it costs. `seconds` is its latency.

    If `tool` is set the text is the arguments it is called with. `reasoning` is what was thought before.
    """

    text: str
    finish_reason: str
    prompt: int
    completion: int
    cached: int
    seconds: float
    reasoning: str = ""
    tool: Tool | None = None


def fault_of(ask: SimulatedRequest | SimulatedEmbedRequest, laws: SimulatedBehavior, attempt: int) -> Fault:
    """What goes wrong with try number `attempt`, from 0, of this request; mostly nothing."""
    state = hashlib.sha256(_TRY.pack(ask.draws[_FAULT], attempt)).digest()
    chance = _chance(int.from_bytes(state[:4], "little"))
    for fault, rate in laws.fault_rates:
        if chance < rate:
            return fault
        chance -= rate
    return ""


def answer(ask: SimulatedRequest, laws: SimulatedBehavior, *, truncated: bool = False) -> SimulatedReply:
    """The reply to `ask`; `truncated` cuts it in the middle.

    Raises:
        BadRequest: if the prompt exceeds the context, or the schema is one it cannot follow.
    """
    prompt = ask.prompt_tokens
    if laws.context is not None and prompt > laws.context:
        raise BadRequest(
            f"the prompt has {prompt} tokens, the maximum context length is {laws.context}",
            "context_length_exceeded",
        )
    text, finish = _said(ask, laws)
    for stop in ask.stop:
        text = text.partition(stop)[0] if stop else text
    thought = _thought(ask, laws) if laws.rate_reasoning else ""
    longest = len(text) // 2 if truncated else len(text)
    if ask.max_tokens is not None:
        room = ask.max_tokens * CHARS_PER_TOKEN
        thought = thought[:room]
        longest = min(longest, room - len(thought))
    if longest < len(text):
        finish = "length"
    completion = max(1, math.ceil((len(thought) + longest) / CHARS_PER_TOKEN))
    seconds = _spread(laws.latency, laws.latency_sigma, ask.draws[_LATENCY])
    if laws.tokens_per_second:
        seconds += completion / laws.tokens_per_second
    cached = ask.cached_tokens
    return SimulatedReply(text[:longest], finish, prompt, completion, cached, seconds, thought, ask.tool)


def prefilled(made: SimulatedReply, cached: int, laws: SimulatedBehavior) -> SimulatedReply:
    """`made`, if so many tokens of the prompt are cached and the others take their time."""
    seconds = made.seconds
    if laws.prefill_tokens_per_second:
        seconds += (made.prompt - cached) / laws.prefill_tokens_per_second
    return made._replace(cached=cached, seconds=seconds)


def embedded(ask: SimulatedEmbedRequest, laws: SimulatedBehavior) -> SimulatedReply:
    """What the vectors for `ask` cost, as an `SimulatedReply` without words."""
    prompt = ask.prompt_tokens
    seconds = _spread(laws.latency, laws.latency_sigma, ask.draws[_LATENCY])
    return prefilled(SimulatedReply("", "stop", prompt, 0, 0, seconds), 0, laws)


def _said(ask: SimulatedRequest, laws: SimulatedBehavior) -> tuple[str, str]:
    """The whole reply, and why it ends; with a tool, its arguments."""
    if ask.tool is not None:  # OpenAI ends a call of the function that was named with `stop`
        made = _structured(ask, {"type": "object", **ask.tool.parameters}, laws, "tools")
        return made, "stop" if ask.tool.named else "tool_calls"
    if ask.schema is None:
        return _prose(ask, laws), "stop"
    text = _structured(ask, ask.schema, laws, "response_format")
    return unwrap(text, ask.choices) if ask.choices else text, "stop"


def _thought(ask: SimulatedRequest, laws: SimulatedBehavior) -> str:
    draw = ask.draws[_THOUGHT]
    if _chance(draw) >= laws.rate_reasoning:
        return ""
    length = _spread(laws.tokens, laws.tokens_sigma, ask.draws[_LENGTH])
    return prose(int(min(length, _LONGEST) * CHARS_PER_TOKEN), draw)


def _prose(ask: SimulatedRequest, laws: SimulatedBehavior) -> str:
    length = _spread(laws.tokens, laws.tokens_sigma, ask.draws[_LENGTH])
    chars = int(min(length, _LONGEST) * CHARS_PER_TOKEN)
    options = opinion.labels(ask.texts)
    if not options:
        return prose(chars, ask.draws[_WORDS])
    begin = opinion.statement(_chosen(ask, options, laws))
    return f"{begin} {prose(chars - len(begin), ask.draws[_WORDS])}"


def _structured(ask: SimulatedRequest, schema: dict[str, Any], laws: SimulatedBehavior, field: str) -> str:
    rng = Random(ask.draws[_SCHEMA])
    try:
        value = instance(schema, rng, lambda options: _chosen(ask, options, laws))
    except UnsupportedSchema as error:
        raise BadRequest(f"{field}: {error}") from error
    return orjson.dumps(value).decode()


def _chosen(ask: SimulatedRequest, options: Sequence[str], laws: SimulatedBehavior) -> str:
    chances = _chance(ask.draws[_AGREE]), _chance(ask.draws[_PICK])
    return opinion.choose(options, ask.said, laws.agreement, chances)


def _chance(draw: int) -> float:
    """A 32-bit draw as a number between 0 and 1, neither of them reached."""
    return (draw + 0.5) * 2.0**-32


def _spread(median: float, sigma: float, draw: int) -> float:
    return median * math.exp(sigma * _NORMAL.inv_cdf(_chance(draw))) if sigma else median
