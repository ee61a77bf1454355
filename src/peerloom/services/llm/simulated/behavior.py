"""Compute the replies, latencies and faults of a simulated model.

All functions are pure: they depend on the request (messages and parameters), the seed and, for faults, the
number of the attempt, but not on time or order. So a run gives the same rows with any number of processes,
and with or without HTTP. Limits, storms and the prefix cache do depend on time; they are in `provider`, and
affect when a reply is sent but not its content.
"""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from statistics import NormalDist
from typing import Annotated, Any, Literal, NamedTuple, get_args

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
from peerloom.services.llm.wire_format.chat import unwrap

Fault = Literal[
    "", "429", "5xx", "hang", "garbage", "truncation", "half_closed", "slow", "cut", "content_type"
]
REPLIES: frozenset[Fault] = frozenset({"", "truncation", "slow"})
"""Faults with which the client still gets a reply."""
RetryAfterAs = Literal["seconds", "none", "fraction", "date", "garbage", "year"]
"""The format of a wait: whole `seconds` (with `retry-after-ms` beside them), `none` (no header), `fraction`
(seconds with decimals), an HTTP `date`, `garbage` (words), or the seconds of a `year`, for any wait."""

_LONGEST = 32_768  # tokens
_NORMAL = NormalDist()
_MOST_ROUNDS = 4  # of tool calls, after which the model answers
_TOOL = 1 << 31  # a number that no choice has
_ALL = struct.Struct("<8I")
_TRY = struct.Struct("<IQ")
_LENGTH, _LATENCY, _WORDS, _AGREE, _PICK, _SCHEMA, _FAULT, _THOUGHT = range(8)  # the draws of a request


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions(Options):
    """The timing, limits and faults of a simulated model."""

    latency: Annotated[NotNegative, FREE] = 0.0
    """Median seconds of a call."""
    latency_sigma: Annotated[NotNegative, FREE] = 0.0
    """Spread of the latency: sigma of a lognormal distribution."""
    tokens_per_second: Annotated[Positive | None, FREE] = None
    """Generation speed of one reply; its time is added to the latency."""
    tokens: Annotated[Count, SAME] = 120
    """Median length of a reply, in tokens of four characters."""
    tokens_sigma: Annotated[NotNegative, SAME] = 0.5
    """Spread of the length: sigma of a lognormal distribution."""
    agreement: Annotated[Share, SAME] = 0.8
    """Probability that an answer is the one stated last in the prompt."""
    context: Annotated[Count | None, FREE] = None
    """Maximum length of a prompt, in tokens."""
    prefix_cache: Annotated[Count | None, FREE] = None
    """Size of the prefix cache in tokens; by default, all but a prompt's last message counts as cached."""
    prefill_tokens_per_second: Annotated[Positive | None, FREE] = None
    """Speed of processing the uncached part of a prompt; its time is added to the latency."""
    tool_calls: Annotated[Share, SAME] = 0.0
    """Share of replies that call a tool if they may (`tool_choice=auto`), in at most four rounds."""
    rate_reasoning: Annotated[Share, SAME] = 0.0
    """Share of replies with reasoning."""
    rate_429: Annotated[Share, FREE] = 0.0
    """Share of calls refused with 429."""
    rate_5xx: Annotated[Share, FREE] = 0.0
    """Share of calls that fail with 503."""
    rate_hang: Annotated[Share, FREE] = 0.0
    """Share of calls without a response."""
    rate_garbage: Annotated[Share, FREE] = 0.0
    """Share of calls answered with a body that is not JSON."""
    rate_truncation: Annotated[Share, FREE] = 0.0
    """Share of replies cut in the middle."""
    rate_half_closed: Annotated[Share, FREE] = 0.0
    """Share of calls whose connection is closed before or within the head of the response."""
    rate_slow: Annotated[Share, FREE] = 0.0
    """Share of replies sent slowly in pieces."""
    rate_cut: Annotated[Share, FREE] = 0.0
    """Share of calls whose connection is closed within the body of the response."""
    rate_content_type: Annotated[Share, FREE] = 0.0
    """Share of calls answered by an HTML page, with status 200."""
    slow_seconds: Annotated[NotNegative, FREE] = 1.0
    """Seconds from the first to the last piece of a slow reply."""
    retry_after: Annotated[NotNegative, FREE] = 1.0
    """Seconds that a 429 asks to wait, unless a limit determines the wait."""
    retry_after_as: Annotated[RetryAfterAs, FREE] = "seconds"
    """Format of that wait: whole seconds, no header, decimals, an HTTP date, words, or a year."""
    storm_every: Annotated[Positive | None, FREE] = None
    """Seconds from the beginning of one storm, in which all calls get 429, to that of the next."""
    storm_seconds: Annotated[NotNegative, FREE] = 5.0
    """Seconds that a storm lasts."""
    limit_rpm: Annotated[Count | None, FREE] = None
    """Calls admitted within any window of limit_window seconds."""
    limit_tpm: Annotated[Count | None, FREE] = None
    """Tokens, of prompts and replies together, admitted within any such window."""
    limit_concurrency: Annotated[Count | None, FREE] = None
    """Concurrent calls."""
    limit_window: Annotated[Positive, FREE] = 60.0
    """Window of limit_rpm and limit_tpm, in seconds."""

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
        """The faults and their shares of calls."""
        return tuple((fault, getattr(self, f"rate_{fault}")) for fault in get_args(Fault) if fault)


@dataclass(frozen=True, kw_only=True)
class SimulatedBehavior(SimulatorOptions):
    """A simulated model; each `seed` is a different model."""

    seed: int = 0


class SimulatedReply(NamedTuple):
    """A reply of the simulated model and its token counts. `seconds` is its latency.

    If `tool` is set, the text is the arguments of the call. `reasoning` is the text before the content.
    `others` are the other choices; the token counts and the latency are of all choices together.
    """

    text: str
    finish_reason: str
    prompt: int
    completion: int
    cached: int
    seconds: float
    reasoning: str = ""
    tool: Tool | None = None
    others: "tuple[SimulatedReply, ...]" = ()


def fault_of(
    request: SimulatedRequest | SimulatedEmbedRequest, behavior: SimulatedBehavior, attempt: int
) -> Fault:
    """Return the fault of attempt number `attempt` (from 0) of a request; empty for none."""
    state = hashlib.sha256(_TRY.pack(request.draws[_FAULT], attempt)).digest()
    chance = _chance(int.from_bytes(state[:4], "little"))
    for fault, rate in behavior.fault_rates:
        if chance < rate:
            return fault
        chance -= rate
    return ""


def answer(
    request: SimulatedRequest, behavior: SimulatedBehavior, *, truncated: bool = False
) -> SimulatedReply:
    """Return the reply to a request, with all its choices; `truncated` cuts them in the middle.

    Raises:
        BadRequest: if the prompt exceeds the context, or the schema is not supported.
    """
    first = _choice(request, behavior, truncated)
    if request.n == 1:
        return first
    draws = (_draws_of(request.draws, number) for number in range(1, request.n))
    others = tuple(_choice(request._replace(draws=each), behavior, truncated) for each in draws)
    return first._replace(
        completion=first.completion + sum(each.completion for each in others),
        seconds=max(first.seconds, *(each.seconds for each in others)),
        others=others,
    )


def _choice(request: SimulatedRequest, behavior: SimulatedBehavior, truncated: bool) -> SimulatedReply:
    prompt = request.prompt_tokens
    if behavior.context is not None and prompt > behavior.context:
        raise BadRequest(
            f"the prompt has {prompt} tokens, the maximum context length is {behavior.context}",
            "context_length_exceeded",
        )
    request = _with_tool(request, behavior)
    text, finish = _content(request, behavior)
    for stop in request.stop:
        text = text.partition(stop)[0] if stop else text
    if request.echo and request.prompt is not None:
        text = request.prompt + text
    thought = _thought(request, behavior) if behavior.rate_reasoning and request.prompt is None else ""
    longest = len(text) // 2 if truncated else len(text)
    if request.max_tokens is not None:
        limit = request.max_tokens * CHARS_PER_TOKEN + (len(request.prompt or "") if request.echo else 0)
        thought = thought[:limit]
        longest = min(longest, limit - len(thought))
    if longest < len(text):
        finish = "length"
    completion = max(1, math.ceil((len(thought) + longest) / CHARS_PER_TOKEN))
    seconds = _spread(behavior.latency, behavior.latency_sigma, request.draws[_LATENCY])
    if behavior.tokens_per_second:
        seconds += completion / behavior.tokens_per_second
    cached = request.cached_tokens
    return SimulatedReply(text[:longest], finish, prompt, completion, cached, seconds, thought, request.tool)


def embedded(request: SimulatedEmbedRequest, behavior: SimulatedBehavior) -> SimulatedReply:
    """Return the token counts and latency of an embeddings request, as a reply without text."""
    prompt = request.prompt_tokens
    seconds = _spread(behavior.latency, behavior.latency_sigma, request.draws[_LATENCY])
    return SimulatedReply("", "stop", prompt, 0, 0, seconds)


def _content(request: SimulatedRequest, behavior: SimulatedBehavior) -> tuple[str, str]:
    """Return the complete content or tool arguments, and the finish reason."""
    if request.tool is not None:  # OpenAI's finish reason is `stop` if the request names the function
        arguments = _structured(request, {"type": "object", **request.tool.parameters}, behavior, "tools")
        return arguments, "stop" if request.tool.named else "tool_calls"
    if request.schema is None:
        return _prose(request, behavior), "stop"
    text = _structured(request, request.schema, behavior, "response_format")
    return unwrap(text, request.choices) if request.choices else text, "stop"


def _with_tool(request: SimulatedRequest, behavior: SimulatedBehavior) -> SimulatedRequest:
    """Return the request with the tool that its reply calls of its own accord, if any."""
    if not request.offered or not behavior.tool_calls or request.rounds >= _MOST_ROUNDS:
        return request
    chance, pick, *_ = _draws_of(request.draws, _TOOL)
    if _chance(chance) >= behavior.tool_calls:
        return request
    name = sorted(request.offered)[pick % len(request.offered)]
    return request._replace(tool=Tool(name, request.offered[name], named=False))


def _draws_of(draws: tuple[int, ...], number: int) -> tuple[int, ...]:
    """Return the draws of another choice of a request."""
    return _ALL.unpack(hashlib.sha256(_ALL.pack(*draws) + number.to_bytes(4, "little")).digest())


def _thought(request: SimulatedRequest, behavior: SimulatedBehavior) -> str:
    draw = request.draws[_THOUGHT]
    return "" if _chance(draw) >= behavior.rate_reasoning else prose(_chars(request, behavior), draw)


def _chars(request: SimulatedRequest, behavior: SimulatedBehavior) -> int:
    length = _spread(behavior.tokens, behavior.tokens_sigma, request.draws[_LENGTH])
    return int(min(length, _LONGEST) * CHARS_PER_TOKEN)


def _prose(request: SimulatedRequest, behavior: SimulatedBehavior) -> str:
    chars = _chars(request, behavior)
    options = opinion.labels(request.texts)
    if not options:
        return prose(chars, request.draws[_WORDS])
    statement = opinion.statement(_chosen(request, options, behavior))
    return f"{statement} {prose(chars - len(statement), request.draws[_WORDS])}"


def _structured(
    request: SimulatedRequest, schema: dict[str, Any], behavior: SimulatedBehavior, field: str
) -> str:
    rng = Random(request.draws[_SCHEMA])
    try:
        value = instance(schema, rng, lambda options: _chosen(request, options, behavior))
    except UnsupportedSchema as error:
        raise BadRequest(f"{field}: {error}") from error
    return orjson.dumps(value).decode()


def _chosen(request: SimulatedRequest, options: Sequence[str], behavior: SimulatedBehavior) -> str:
    chances = _chance(request.draws[_AGREE]), _chance(request.draws[_PICK])
    return opinion.choose(options, request.dialogue, behavior.agreement, chances)


def _chance(draw: int) -> float:
    """Return a 32-bit draw as a number strictly between 0 and 1."""
    return (draw + 0.5) * 2.0**-32


def _spread(median: float, sigma: float, draw: int) -> float:
    return median * math.exp(sigma * _NORMAL.inv_cdf(_chance(draw))) if sigma else median
