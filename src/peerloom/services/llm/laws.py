"""The laws a simulated model obeys: what it says, how long it takes, when it fails.

All are pure functions of the request (messages and parameters), the seed and, for faults, how often
that request has been tried. Nothing depends on time or order, so a run gives the same rows in one
process or many, over HTTP or without.
"""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import orjson

from peerloom.errors import ConfigError
from peerloom.services.llm import opinion
from peerloom.services.llm.ask import CHARS_PER_TOKEN, Ask, BadRequest
from peerloom.services.llm.instances import UnsupportedSchema, instance
from peerloom.services.llm.prose import prose
from peerloom.services.llm.wire import unwrap

Fault = Literal["", "429", "5xx", "hang", "garbage", "truncation"]

_LONGEST = 32_768  # tokens
_NORMAL = NormalDist()
_TRY = struct.Struct("<IQ")
_LENGTH, _LATENCY, _WORDS, _AGREE, _PICK, _SCHEMA, _FAULT = range(7)  # which of an ask's draws is whose


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
        rate_429: share of calls refused with 429.
        rate_5xx: share of calls that fail with 503.
        rate_hang: share of calls that get no answer.
        rate_garbage: share of calls answered with a body that is no JSON.
        rate_truncation: share of replies cut in the middle, with finish_reason `length`.
        retry_after: seconds that a 429 asks to wait.

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
    rate_429: float = 0.0
    rate_5xx: float = 0.0
    rate_hang: float = 0.0
    rate_garbage: float = 0.0
    rate_truncation: float = 0.0
    retry_after: float = 1.0

    def __post_init__(self) -> None:
        for name in ("agreement", *(f.name for f in fields(self) if f.name.startswith("rate_"))):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}: it must be between 0 and 1")
        for name in ("latency", "latency_sigma", "tokens_sigma", "retry_after"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("tokens", "tokens_per_second", "context"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}: it must be more than 0")
        if sum(rate for _, rate in self.fault_rates) > 1.0:
            raise ConfigError("the llm.rate_* add up to more than 1: they are shares of all calls")

    @property
    def fault_rates(self) -> tuple[tuple[Fault, float], ...]:
        """Each fault and its share of calls."""
        return (
            ("429", self.rate_429),
            ("5xx", self.rate_5xx),
            ("hang", self.rate_hang),
            ("garbage", self.rate_garbage),
            ("truncation", self.rate_truncation),
        )


class Answer(NamedTuple):
    """What the model says, and what it costs. `seconds` is its latency."""

    text: str
    finish_reason: str
    prompt: int
    completion: int
    cached: int
    seconds: float


def fault_of(ask: Ask, laws: Laws, attempt: int) -> Fault:
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
    text = _prose(ask, laws) if ask.schema is None else _structured(ask, ask.schema, laws)
    for stop in ask.stop:
        text = text.partition(stop)[0] if stop else text
    longest = len(text) // 2 if truncated else len(text)
    if ask.max_tokens is not None:
        longest = min(longest, ask.max_tokens * CHARS_PER_TOKEN)
    finish = "length" if longest < len(text) else "stop"
    completion = max(1, math.ceil(longest / CHARS_PER_TOKEN))
    seconds = _spread(laws.latency, laws.latency_sigma, ask.draws[_LATENCY])
    if laws.tokens_per_second:
        seconds += completion / laws.tokens_per_second
    return Answer(text[:longest], finish, prompt, completion, ask.cached_tokens, seconds)


def _prose(ask: Ask, laws: Laws) -> str:
    length = _spread(laws.tokens, laws.tokens_sigma, ask.draws[_LENGTH])
    chars = int(min(length, _LONGEST) * CHARS_PER_TOKEN)
    options = opinion.labels(ask.texts)
    if not options:
        return prose(chars, ask.draws[_WORDS])
    begin = opinion.statement(_chosen(ask, options, laws))
    return f"{begin} {prose(chars - len(begin), ask.draws[_WORDS])}"


def _structured(ask: Ask, schema: dict[str, Any], laws: Laws) -> str:
    rng = Random(ask.draws[_SCHEMA])
    try:
        value = instance(schema, rng, lambda options: _chosen(ask, options, laws))
    except UnsupportedSchema as error:
        raise BadRequest(f"response_format: {error}") from error
    text = orjson.dumps(value).decode()
    return unwrap(text, ask.choices) if ask.choices else text


def _chosen(ask: Ask, options: Sequence[str], laws: Laws) -> str:
    chances = _chance(ask.draws[_AGREE]), _chance(ask.draws[_PICK])
    return opinion.choose(options, ask.said, laws.agreement, chances)


def _chance(draw: int) -> float:
    """A 32-bit draw as a number between 0 and 1, neither of them reached."""
    return (draw + 0.5) * 2.0**-32


def _spread(median: float, sigma: float, draw: int) -> float:
    return median * math.exp(sigma * _NORMAL.inv_cdf(_chance(draw))) if sigma else median
