"""Answer the calls of a simulated model as a provider does, with its limits, prefix cache and statistics.

The server and the model in process share this class, so they behave alike; both pass the time as an argument.
`respond` answers a call, and `finish` ends it if it was admitted. The attempts of failed calls are counted
until they succeed, to number the attempts.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from peerloom.services.llm.simulated.behavior import (
    REPLIES,
    Fault,
    SimulatedBehavior,
    SimulatedReply,
    answer,
    embedded,
    fault_of,
)
from peerloom.services.llm.simulated.bodies import encoded
from peerloom.services.llm.simulated.prefix_cache import PrefixCache
from peerloom.services.llm.simulated.quota import REFUSED, Quota, Refusal
from peerloom.services.llm.simulated.request import BadRequest, SimulatedEmbedRequest, SimulatedRequest
from peerloom.services.llm.simulated.responses import Response, failure, too_many, unknown_model, with_fault
from peerloom.services.llm.simulated.stream import as_stream, events

Reader = Callable[[Any, int], SimulatedRequest | SimulatedEmbedRequest]
"""Parses the decoded body of a request to the model with a seed."""


class AdmittedCall(NamedTuple):
    """An admitted call: its random draws, its fault and its reply."""

    draws: tuple[int, ...]
    fault: Fault
    reply: SimulatedReply


class SimulatedProvider:
    """One provider, or one replica of a model.

    Args:
        behavior: the behavior of the model.
        model: the name of the model.
        now: the time by any monotonic clock.
        strict: whether calls of another model are refused.
    """

    def __init__(self, behavior: SimulatedBehavior, model: str, now: float, *, strict: bool = False) -> None:
        self._model = model
        self._strict = strict
        self._attempts: dict[tuple[int, ...], int] = {}
        self.update_behavior(behavior)
        self.quota = Quota(behavior, now)
        self._prefixes = PrefixCache(behavior.prefix_cache) if behavior.prefix_cache is not None else None
        self._refused: Counter[str] = Counter()
        self._faults: Counter[Fault] = Counter()
        self._served = self._left = 0
        self._prompt = self._completion = self._cached = 0

    def update_behavior(self, behavior: SimulatedBehavior) -> None:
        """Change the behavior, except for limits, storms and the prefix cache."""
        self.behavior = behavior
        self._faulty = any(rate for _, rate in behavior.fault_rates)

    def respond(self, read: Reader, body: bytes, now: float) -> tuple[Response, AdmittedCall | None]:
        """Return the response to a call, and the call if it is admitted, to be ended by `finish`."""
        behavior = self.behavior
        try:
            request = read(orjson.loads(body), behavior.seed)
            if self._strict and request.model != self._model:
                return unknown_model(request.model), None
            attempt = self._attempts.get(request.draws, 0)
            fault = fault_of(request, behavior, attempt) if self._faulty else ""
            outcome = self._admit(request, fault, now)
        except (BadRequest, orjson.JSONDecodeError) as error:
            code = error.code if isinstance(error, BadRequest) else "invalid_json"
            return failure(400, str(error), code), None
        if isinstance(outcome, Refusal):
            wait = behavior.retry_after if outcome.seconds is None else outcome.seconds
            return too_many(f": {REFUSED[outcome.reason]}", wait, behavior.retry_after_as), None
        if fault:
            self._attempts[request.draws] = attempt + 1
        answered = encoded(outcome, self._model, request, behavior.seed)
        if isinstance(request, SimulatedRequest) and request.stream:
            payload = events(answered, usage=request.stream_usage)
        else:
            payload = orjson.dumps(answered)
        response = with_fault(fault, outcome, payload, behavior, request.draws[-1])
        if isinstance(request, SimulatedRequest) and request.stream and response.status == 200:
            response = as_stream(response, outcome.completion, behavior)
        return response, AdmittedCall(request.draws, fault, outcome)

    def _admit(
        self, request: SimulatedRequest | SimulatedEmbedRequest, fault: Fault, now: float
    ) -> SimulatedReply | Refusal:
        """Return the reply to a request with this fault, or its refusal by a limit.

        Raises:
            BadRequest: if the request can never be answered.
        """
        behavior = self.behavior
        if isinstance(request, SimulatedRequest):
            reply = answer(request, behavior, truncated=fault == "truncation")
        else:
            reply = embedded(request, behavior)
        refusal = self._enter(fault, reply.prompt + reply.completion, now)
        if refusal is not None:
            return refusal
        if self._prefixes is not None and isinstance(request, SimulatedRequest):
            messages = [
                (str(m.get("role")), text) for m, text in zip(request.messages, request.texts, strict=True)
            ]
            reply = reply._replace(cached=self._prefixes.add(messages, reply.text))
        if behavior.prefill_tokens_per_second:
            seconds = (reply.prompt - reply.cached) / behavior.prefill_tokens_per_second
            reply = reply._replace(seconds=reply.seconds + seconds)
        return reply

    def finish(self, call: AdmittedCall, *, sent: bool) -> None:
        """End an admitted call, whose response was sent unless the client disconnected before."""
        draws, fault, reply = call
        self.quota.leave()
        if fault:
            self._faults[fault] += 1
        if not sent:
            self._left += 1
        elif fault in REPLIES:
            if self._attempts:
                self._attempts.pop(draws, None)
            self._served += 1
            self._prompt += reply.prompt
            self._completion += reply.completion
            self._cached += reply.cached

    def stats(self, now: float) -> dict[str, Any]:
        """Return the statistics for `GET /stats`.

        `served` counts complete replies, `refused` refusals by limits and storms, `faults` faults by kind
        (including 429, but not refusals), and `left` clients that disconnected before the response.
        """
        return {
            "served": self._served,
            "refused": sum(self._refused.values()),
            "refused_for": {reason: self._refused[reason] for reason in REFUSED},
            "faults": {fault: self._faults[fault] for fault, _ in self.behavior.fault_rates},
            "left": self._left,
            "running": self.quota.running,
            "most_running": self.quota.most_running,
            "window": self.quota.used(now),
            "tokens": {"prompt": self._prompt, "completion": self._completion, "cached": self._cached},
            "prefix_cache_tokens": len(self._prefixes) if self._prefixes is not None else 0,
        }

    def _enter(self, fault: Fault, tokens: int, now: float) -> Refusal | None:
        if not self.quota.fits(tokens):
            raise BadRequest(
                f"the request takes {tokens} tokens, and limit_tpm allows {self.behavior.limit_tpm} "
                "in a window: it can never be served",
                "request_too_large",
            )
        refusal = self.quota.enter(tokens if fault in REPLIES else 0, now)
        if refusal is not None:
            self._refused[refusal.reason] += 1
        return refusal
