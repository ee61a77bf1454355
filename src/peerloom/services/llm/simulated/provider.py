"""What a simulated provider remembers between requests: its limits, its prefix cache, and its counts.

Shared by the server and the model in process, which so behave alike; both pass the time in. A request is
`chat` or `embed`, which lets it in or refuses it, and if let in `over` in the end.
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
    """One provider, or one replica of a model. `now`: seconds by a clock that never goes back."""

    def __init__(self, laws: SimulatedBehavior, now: float) -> None:
        self.obey(laws)
        self.quota = Quota(
            requests=laws.limit_rpm,
            tokens=laws.limit_tpm,
            concurrency=laws.limit_concurrency,
            window=laws.limit_window,
            storm_every=laws.storm_every,
            storm_seconds=laws.storm_seconds,
            began=now,
        )
        self._prefixes = PrefixCache(laws.prefix_cache) if laws.prefix_cache is not None else None
        self._refused: Counter[str] = Counter()
        self._faults: Counter[Fault] = Counter()
        self._served = self._left = 0
        self._prompt = self._completion = self._cached = 0

    def obey(self, laws: SimulatedBehavior) -> None:
        """These are the laws from now on, but for limits, storms and the cache."""
        self.laws = laws
        self.faulty = any(rate for _, rate in laws.fault_rates)

    def chat(self, ask: SimulatedRequest, fault: Fault, now: float) -> SimulatedReply | Refusal:
        """The reply to a request that meets `fault`, or why it is refused for now.

        Raises:
            BadRequest: if it can never be answered.
        """
        laws = self.laws
        made = answer(ask, laws, truncated=fault == "truncation")
        refusal = self._let_in(fault, made.prompt + made.completion, now)
        if refusal is not None:
            return refusal
        if self._prefixes is not None:
            messages = [(str(m.get("role")), text) for m, text in zip(ask.messages, ask.texts, strict=True)]
            made = prefilled(made, self._prefixes.meet(messages, made.text), laws)
        elif laws.prefill_tokens_per_second:
            made = prefilled(made, made.cached, laws)
        return made

    def embed(self, ask: SimulatedEmbedRequest, fault: Fault, now: float) -> SimulatedReply | Refusal:
        """What the vectors cost that are asked for, or why they are refused for now.

        Raises:
            BadRequest: if it can never be answered.
        """
        return self._let_in(fault, ask.prompt_tokens, now) or embedded(ask, self.laws)

    def over(self, fault: Fault, made: SimulatedReply | None) -> None:
        """A request that was let in is over; `made` is what the client got, None if it left before."""
        self.quota.leave()
        if fault:
            self._faults[fault] += 1
        if made is None:
            self._left += 1
        elif fault in REPLIES:
            self._served += 1
            self._prompt += made.prompt
            self._completion += made.completion
            self._cached += made.cached

    def stats(self, now: float) -> dict[str, Any]:
        """The counts so far, for `GET /stats`.

        `served` are whole replies; `refused` are by reason, `faults` by kind (those of 429 are in there, and
        no refusals by a limit); `left` are clients that went before the answer.
        """
        return {
            "served": self._served,
            "refused": sum(self._refused.values()),
            "refused_for": {reason: self._refused[reason] for reason in REFUSED},
            "faults": {fault: self._faults[fault] for fault, _ in self.laws.fault_rates},
            "left": self._left,
            "running": self.quota.running,
            "most_running": self.quota.most_running,
            "window": self.quota.used(now),
            "tokens": {"prompt": self._prompt, "completion": self._completion, "cached": self._cached},
            "prefix_cache_tokens": len(self._prefixes) if self._prefixes is not None else 0,
        }

    def _let_in(self, fault: Fault, tokens: int, now: float) -> Refusal | None:
        if not self.quota.fits(tokens):
            raise BadRequest(
                f"the request takes {tokens} tokens, and limit_tpm allows {self.laws.limit_tpm} in a window: "
                "it can never be served",
                "request_too_large",
            )
        refusal = self.quota.enter(tokens if fault in REPLIES else 0, now)
        if refusal is not None:
            self._refused[refusal.reason] += 1
        return refusal
