"""Track the state of a simulated provider: its limits, prefix cache and statistics.

The server and the model in process share this class, so they behave alike; both pass the time as an argument.
`chat` and `embed` admit or refuse a request; `finish` ends an admitted one.
"""

from collections import Counter
from typing import Any

from peerloom.services.llm.simulated.behavior import (
    REPLIES,
    Fault,
    SimulatedBehavior,
    SimulatedReply,
    answer,
    embedded,
    prefilled,
)
from peerloom.services.llm.simulated.prefix_cache import PrefixCache
from peerloom.services.llm.simulated.quota import Quota, Refusal
from peerloom.services.llm.simulated.request import BadRequest, SimulatedEmbedRequest, SimulatedRequest

REFUSED = {
    "storm": "the provider is overloaded",
    "requests": "limit_rpm is reached",
    "tokens": "limit_tpm is reached",
    "concurrency": "limit_concurrency is reached",
}


class SimulatedProvider:
    """One provider, or one replica of a model. `now` is by any monotonic clock."""

    def __init__(self, behavior: SimulatedBehavior, now: float) -> None:
        self.update_behavior(behavior)
        self.quota = Quota(
            requests=behavior.limit_rpm,
            tokens=behavior.limit_tpm,
            concurrency=behavior.limit_concurrency,
            window=behavior.limit_window,
            storm_every=behavior.storm_every,
            storm_seconds=behavior.storm_seconds,
            began=now,
        )
        self._prefixes = PrefixCache(behavior.prefix_cache) if behavior.prefix_cache is not None else None
        self._refused: Counter[str] = Counter()
        self._faults: Counter[Fault] = Counter()
        self._served = self._left = 0
        self._prompt = self._completion = self._cached = 0

    def update_behavior(self, behavior: SimulatedBehavior) -> None:
        """Change the behavior, except for limits, storms and the prefix cache."""
        self.behavior = behavior
        self.faulty = any(rate for _, rate in behavior.fault_rates)

    def chat(self, request: SimulatedRequest, fault: Fault, now: float) -> SimulatedReply | Refusal:
        """Return the reply to a request with this fault, or its refusal by a limit.

        Raises:
            BadRequest: if the request can never be answered.
        """
        behavior = self.behavior
        reply = answer(request, behavior, truncated=fault == "truncation")
        refusal = self._admit(fault, reply.prompt + reply.completion, now)
        if refusal is not None:
            return refusal
        if self._prefixes is not None:
            messages = [
                (str(m.get("role")), text) for m, text in zip(request.messages, request.texts, strict=True)
            ]
            reply = prefilled(reply, self._prefixes.add(messages, reply.text), behavior)
        elif behavior.prefill_tokens_per_second:
            reply = prefilled(reply, reply.cached, behavior)
        return reply

    def embed(self, request: SimulatedEmbedRequest, fault: Fault, now: float) -> SimulatedReply | Refusal:
        """Return the token counts of an embeddings request with this fault, or its refusal by a limit.

        Raises:
            BadRequest: if the request can never be answered.
        """
        return self._admit(fault, request.prompt_tokens, now) or embedded(request, self.behavior)

    def finish(self, fault: Fault, reply: SimulatedReply | None) -> None:
        """End an admitted request; `reply` is the one sent, None if the client disconnected."""
        self.quota.leave()
        if fault:
            self._faults[fault] += 1
        if reply is None:
            self._left += 1
        elif fault in REPLIES:
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

    def _admit(self, fault: Fault, tokens: int, now: float) -> Refusal | None:
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
