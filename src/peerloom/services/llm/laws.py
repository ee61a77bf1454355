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
from dataclasses import dataclass, fields
from functools import cached_property
from random import Random
from statistics import NormalDist
from typing import Any, Literal, NamedTuple, get_args

import orjson

from peerloom.errors import ConfigError
from peerloom.services.llm import opinion
from peerloom.services.llm.ask import CHARS_PER_TOKEN, Ask, BadRequest, EmbedAsk, Tool
from peerloom.services.llm.instances import UnsupportedSchema, instance
from peerloom.services.llm.prose import prose
from peerloom.services.llm.waits import RetryAfterAs
from peerloom.services.llm.wire import unwrap

Fault = Literal[
    "", "429", "5xx", "hang", "garbage", "truncation", "half_closed", "slow", "cut", "content_type"
]
REPLIES: frozenset[Fault] = frozenset({"", "truncation", "slow"})
"""With these the client gets a reply all the same."""

_LONGEST = 32_768  # tokens
_NORMAL = NormalDist()
_TRY = struct.Struct("<IQ")
_LENGTH, _LATENCY, _WORDS, _AGREE, _PICK, _SCHEMA, _FAULT, _THOUGHT = range(8)  # whose an ask's draws are
_ABOVE_0 = (
    *("tokens", "tokens_per_second", "context", "prefix_cache", "prefill_tokens_per_second"),
    *("limit_rpm", "limit_tpm", "limit_concurrency", "limit_window", "storm_every"),
)
_FROM_0 = ("latency", "latency_sigma", "tokens_sigma", "retry_after", "slow_seconds", "storm_seconds")


@dataclass(frozen=True, kw_only=True)
class Laws:
    """How a simulated model behaves.

    Args:
        seed: another seed is another model.
        latency: seconds a call takes; the median, if spread.
        latency_sigma: spread of the latency, sigma of a lognormal law; 0 is none.
        tokens_per_second: if set, a reply takes this much longer the longer it is.
        tokens: median length of a reply, in tokens of four characters.
        tokens_sigma: spread of the length, sigma of a lognormal law; from 1 on its tail is heavy.
        agreement: probability that an answer is the one stated last in the prompt, see `opinion`.
        context: longest prompt in tokens; None is no limit.
        prefix_cache: tokens that a server's prefix cache holds; None is all that precedes the last message.
        prefill_tokens_per_second: if set, a reply takes longer by what of its prompt is not cached.
        rate_reasoning: share of replies with thoughts before them, as long as the law of lengths says.
        rate_429: share of calls refused with 429.
        rate_5xx: share of calls that fail with 500.
        rate_hang: share of calls that get no answer.
        rate_garbage: share of calls answered with a body that is no JSON.
        rate_truncation: share of replies cut in the middle, with finish_reason `length`.
        rate_half_closed: share of calls whose connection is closed before or within the head of the answer.
        rate_slow: share of replies that trickle in pieces, over `slow_seconds`.
        rate_cut: share of calls whose connection is closed within the body of the answer.
        rate_content_type: share of calls answered, with status 200, by an HTML page.
        slow_seconds: how long a slow reply trickles.
        retry_after: seconds that a 429 asks to wait, unless a limit says when it will do.
        retry_after_as: how a 429 states that wait, see `waits.RetryAfterAs`.
        storm_every: seconds from one storm, in which all calls get 429, to the next; None is never.
        storm_seconds: how long a storm lasts.
        limit_rpm: calls let in within any `limit_window`; the next one gets 429. None is no limit.
        limit_tpm: tokens, of prompts and replies together, let in within any `limit_window`.
        limit_concurrency: calls at once.
        limit_window: seconds that `limit_rpm` and `limit_tpm` are counted over.

    Raises:
        ConfigError: for a value out of range.
    """

    seed: int = 0
    latency: float = 0.0
    latency_sigma: float = 0.0
    tokens_per_second: float | None = None
    tokens: int = 120
    tokens_sigma: float = 0.5
    agreement: float = 0.8
    context: int | None = None
    prefix_cache: int | None = None
    prefill_tokens_per_second: float | None = None
    rate_reasoning: float = 0.0
    rate_429: float = 0.0
    rate_5xx: float = 0.0
    rate_hang: float = 0.0
    rate_garbage: float = 0.0
    rate_truncation: float = 0.0
    rate_half_closed: float = 0.0
    rate_slow: float = 0.0
    rate_cut: float = 0.0
    rate_content_type: float = 0.0
    slow_seconds: float = 1.0
    retry_after: float = 1.0
    retry_after_as: RetryAfterAs = "seconds"
    storm_every: float | None = None
    storm_seconds: float = 5.0
    limit_rpm: int | None = None
    limit_tpm: int | None = None
    limit_concurrency: int | None = None
    limit_window: float = 60.0

    def __post_init__(self) -> None:
        for name in ("agreement", *(f.name for f in fields(self) if f.name.startswith("rate_"))):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}: it must be between 0 and 1")
        for name in _FROM_0:
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}: it must be 0 or more")
        for name in _ABOVE_0:
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}: it must be more than 0")
        if self.retry_after_as not in get_args(RetryAfterAs):
            known = ", ".join(get_args(RetryAfterAs))
            raise ConfigError(f"llm.retry_after_as is {self.retry_after_as!r}: it must be one of {known}")
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


class Answer(NamedTuple):
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


def fault_of(ask: Ask | EmbedAsk, laws: Laws, attempt: int) -> Fault:
    """What goes wrong with try number `attempt`, from 0, of this request; mostly nothing."""
    state = hashlib.sha256(_TRY.pack(ask.draws[_FAULT], attempt)).digest()
    chance = _chance(int.from_bytes(state[:4], "little"))
    for fault, rate in laws.fault_rates:
        if chance < rate:
            return fault
        chance -= rate
    return ""


def answer(ask: Ask, laws: Laws, *, truncated: bool = False) -> Answer:
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
    return Answer(text[:longest], finish, prompt, completion, cached, seconds, thought, ask.tool)


def prefilled(made: Answer, cached: int, laws: Laws) -> Answer:
    """`made`, if so many tokens of the prompt are cached and the others take their time."""
    seconds = made.seconds
    if laws.prefill_tokens_per_second:
        seconds += (made.prompt - cached) / laws.prefill_tokens_per_second
    return made._replace(cached=cached, seconds=seconds)


def embedded(ask: EmbedAsk, laws: Laws) -> Answer:
    """What the vectors for `ask` cost, as an `Answer` without words."""
    prompt = ask.prompt_tokens
    seconds = _spread(laws.latency, laws.latency_sigma, ask.draws[_LATENCY])
    return prefilled(Answer("", "stop", prompt, 0, 0, seconds), 0, laws)


def _said(ask: Ask, laws: Laws) -> tuple[str, str]:
    """The whole reply, and why it ends; with a tool, its arguments."""
    if ask.tool is not None:  # OpenAI ends a call of the function that was named with `stop`
        made = _structured(ask, {"type": "object", **ask.tool.parameters}, laws, "tools")
        return made, "stop" if ask.tool.named else "tool_calls"
    if ask.schema is None:
        return _prose(ask, laws), "stop"
    text = _structured(ask, ask.schema, laws, "response_format")
    return unwrap(text, ask.choices) if ask.choices else text, "stop"


def _thought(ask: Ask, laws: Laws) -> str:
    draw = ask.draws[_THOUGHT]
    if _chance(draw) >= laws.rate_reasoning:
        return ""
    length = _spread(laws.tokens, laws.tokens_sigma, ask.draws[_LENGTH])
    return prose(int(min(length, _LONGEST) * CHARS_PER_TOKEN), draw)


def _prose(ask: Ask, laws: Laws) -> str:
    length = _spread(laws.tokens, laws.tokens_sigma, ask.draws[_LENGTH])
    chars = int(min(length, _LONGEST) * CHARS_PER_TOKEN)
    options = opinion.labels(ask.texts)
    if not options:
        return prose(chars, ask.draws[_WORDS])
    begin = opinion.statement(_chosen(ask, options, laws))
    return f"{begin} {prose(chars - len(begin), ask.draws[_WORDS])}"


def _structured(ask: Ask, schema: dict[str, Any], laws: Laws, field: str) -> str:
    rng = Random(ask.draws[_SCHEMA])
    try:
        value = instance(schema, rng, lambda options: _chosen(ask, options, laws))
    except UnsupportedSchema as error:
        raise BadRequest(f"{field}: {error}") from error
    return orjson.dumps(value).decode()


def _chosen(ask: Ask, options: Sequence[str], laws: Laws) -> str:
    chances = _chance(ask.draws[_AGREE]), _chance(ask.draws[_PICK])
    return opinion.choose(options, ask.said, laws.agreement, chances)


def _chance(draw: int) -> float:
    """A 32-bit draw as a number between 0 and 1, neither of them reached."""
    return (draw + 0.5) * 2.0**-32


def _spread(median: float, sigma: float, draw: int) -> float:
    return median * math.exp(sigma * _NORMAL.inv_cdf(_chance(draw))) if sigma else median
