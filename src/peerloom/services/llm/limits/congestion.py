"""Adapt the load to the rate that a provider accepts, inferred from its refusals.

Nothing is limited until refusals become frequent. Then the rate of attempts and the number of calls in flight
are cut to slightly below the load that was accepted. They grow again, slowly at first and faster the longer
nothing is refused. If nearly every attempt is refused, the provider counts as closed: attempts pause for the
time it asked for, or for a backoff of our own, and then a few probes are sent. Once some are accepted the
rate doubles every round, so waiting calls resume gradually; after several pauses it stays near its average.

Some providers refuse a share of calls at any load. Cuts do not help there, so that share is measured after
each cut and tolerated from then on; a cut that did not help is undone.
"""

import math
from collections import deque
from typing import NamedTuple

from peerloom.services.llm.limits.samples import ROUND_SECONDS, Average, Sample

BURST_SECONDS = 0.1  # attempts of this time at the current rate may begin at once
PROBES = 8
"""Attempts that probe whether a closed provider has opened.

It is also the minimum number of calls in flight: as many as a simple client has.
"""
LONGEST_ROUND_SECONDS = 5.0
CUT = 0.95
CLOSED = 0.9  # share of refused attempts from which the provider counts as closed
ALWAYS_TOLERATED = 0.02  # share of refused attempts
MOST_TOLERATED = 0.5
FEW = 4  # attempts below which refusals are ignored
SAMPLE = 20  # attempts from which a share is measured
SAMPLE_SECONDS = 2.0  # after which a smaller sample is used
DECLARED_TIMES = 2  # factor on the sample size where rates are declared
SURE_SECONDS = 1.5  # of attempts from which the rate of accepted ones is known precisely enough
RECENT_SECONDS, USUAL_SECONDS = 3.0, 60.0  # over which the rate of accepted attempts is averaged
GROWTH_PER_SECOND = 0.0035
SHORTEST_SCALE_SECONDS, LONGEST_SCALE_SECONDS = 5.0, 60.0
"""The time without a cut after which growth doubles: as long as the provider's last open and closed phase."""
FREE_AFTER = 6.0  # times the scale without a cut, after which nothing is limited any more
FIRST_PAUSE_SECONDS, SHORT_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 2.0, 8.0
"""Our own pauses: the first, and the longest if the provider asks for short ones, or for none."""
WINDOWS = 2
"""The number of pauses after which a provider is assumed to count over a window.

From then on calls are sent at its average rate. Before, the rate doubles until calls are refused, since a new
window admits many at once.
"""
ACCIDENT_SECONDS = 2.0  # the longest pause for one refusal below a declared rate
TRUSTED_PAUSES = 2  # pauses in a row whose length the provider may choose, however short


class Load(NamedTuple):
    """Calls in flight, and all calls: in flight, waiting to begin, or waiting for their next attempt."""

    in_flight: float
    calls: float


class Congestion:
    """The congestion control of one service, over all peers. Times in seconds by the caller's clock.

    Args:
        now: the current time.
        declared: whether the user has declared rates. These are enforced elsewhere, so refusals are
            accidents, and reduce the load only if they are frequent.

    Attributes:
        rate: attempts that may begin per second.
        ceiling: calls that may be in flight.
        closed_until: when attempts may begin again; in the past if they may begin now.
    """

    def __init__(self, now: float, *, declared: bool = False) -> None:
        self._declared = declared
        self.rate = math.inf
        self.ceiling = math.inf
        self.closed_until = -math.inf
        self._pauses = 0  # in a row
        self._probing = False
        self._tolerated = 0.0
        times = DECLARED_TIMES if declared else 1
        self._sample = Sample(now, SAMPLE * times, SAMPLE_SECONDS * times)
        self._recent = Average(now, RECENT_SECONDS)
        self._usual = Average(now, USUAL_SECONDS)
        self._probes = Sample(now, SAMPLE, SAMPLE_SECONDS)  # since the latest pause
        self._asked = 0.0
        self._before: tuple[float, float, float] | None = (
            None  # rate, ceiling and share before the latest cut
        )
        self._loads = self.rate, self.ceiling  # before the pause
        self._cut_at = -math.inf
        self._advanced = self._cycle_began = now
        self._accepted = 0  # since the cycle began
        self._pending: deque[tuple[float, int]] = deque()  # attempts that may still be refused, by time
        self._row = 0  # refusals since the last accepted attempt
        self._row_began = now
        self._round = ROUND_SECONDS  # in which a refusal arrives
        self._cycles = 0  # the number of times that it was closed and has opened again
        self._scale = SHORTEST_SCALE_SECONDS
        self._knee = self._ceiling_knee = math.inf  # rate and ceiling double up to these
        self._tokens = 0.0

    @property
    def closed(self) -> bool:
        """Whether only probes are sent, because nearly every attempt was refused."""
        return self._probing

    @property
    def pending(self) -> int:
        """Attempts that may still be refused."""
        return sum(attempts for _, attempts in self._pending)

    @property
    def limiting(self) -> bool:
        """Whether the rate or the calls in flight are limited now."""
        return self.rate < math.inf or self.ceiling < math.inf

    def observe(
        self, attempts: int, refused: int, now: float, *, retry_after: float, lag: float, load: Load
    ) -> bool:
        """Record the attempts that began and those that were refused since the last call.

        Args:
            attempts: attempts begun.
            refused: attempts refused.
            now: the current time.
            retry_after: the longest wait that the provider asks for, from now; 0 for none.
            lag: the seconds that a refusal takes to arrive.
            load: the current calls.

        Returns:
            Whether the load was reduced.
        """
        self._round = min(LONGEST_ROUND_SECONDS, max(ROUND_SECONDS, 1.5 * lag))
        self._settle(now)
        if attempts:
            self._pending.append((now, attempts))
        self._sample.add(attempts, refused, now)
        self._probes.add(attempts, refused, now)
        if not refused:
            return False
        self._row_began = now if not self._row else self._row_began
        self._row += refused
        self._drop_refused(refused)
        self._asked = max(self._asked, now + retry_after if retry_after else 0.0)
        return self._react(load, now)

    def accepted(self, attempts: int, since: float, now: float) -> None:
        """Record earlier attempts that were accepted at an even rate since a time."""
        for average in (self._recent, self._usual):
            average.add_earlier(attempts, since, now)

    def advance(self, *, wanted: bool, load: Load, now: float) -> None:
        """Advance the time to `now`; `wanted` is whether calls wait for the rate or the ceiling to grow."""
        seconds, self._advanced = max(0.0, now - self._advanced), now
        self._settle(now)
        if not self.limiting or now < self.closed_until:
            self._sample.renew(now)
            return
        if load.calls <= PROBES or (not self._probing and now - self._cut_at >= FREE_AFTER * self._scale):
            self._free()
        elif not self._probing:
            self._refill(seconds)
            if wanted and self._before is None:
                self._grow(seconds, now)
        self._end_trial(now)
        if self._declared and not self._probing and self._before is None:
            self._review(now)
        self._sample.renew(now)

    def _drop_refused(self, refused: int) -> None:
        """Remove refused attempts from the pending ones, the oldest first."""
        while refused and self._pending:
            at, attempts = self._pending.popleft()
            if attempts > refused:
                self._pending.appendleft((at, attempts - refused))
            refused = max(0, refused - attempts)

    def _settle(self, now: float) -> None:
        """Count pending attempts as accepted once their refusal would have arrived."""
        while self._pending and self._pending[0][0] <= now - self._round:
            at, attempts = self._pending.popleft()
            self._row = 0
            self._accepted += attempts
            self._recent.add(attempts, now)
            self._usual.add(attempts, now)
            if self._probing and at >= self.closed_until:
                self._open(now)
        if self._probing and not self._pending and self._probes.attempts > self._probes.refused:
            self._open(now)

    def _free(self) -> None:
        """Remove all limits."""
        self.rate = self.ceiling = math.inf
        self._probing, self._before, self._pauses = False, None, 0

    def take(self, wanted: int, now: float) -> int:
        """Take up to `wanted` attempts from the rate, and return the number that may begin now."""
        if now < self.closed_until:
            return 0
        if self.rate == math.inf:
            return wanted
        taken = min(wanted, math.floor(self._tokens + 1e-9))
        self._tokens -= taken
        return taken

    def due(self, now: float) -> float:
        """Return the seconds until the next attempt may begin; 0 if one may begin now."""
        if now < self.closed_until:
            return self.closed_until - now
        return 0.0 if self.rate == math.inf else max(0.0, (1.0 - self._tokens) / self.rate)

    def slow(self, in_flight: int, now: float) -> None:
        """Reduce the calls in flight, since the provider has become slow."""
        self.ceiling = max(1.0, 0.9 * min(self.ceiling, max(in_flight, 1)))
        self._cut_at = now

    def _react(self, load: Load, now: float) -> bool:
        """Pause or cut if too many of the latest attempts were refused; return whether it did."""
        sample = self._probes if self._probing else self._sample
        if now < sample.began or load.calls <= PROBES:
            return False
        if self._is_closed(now):
            self._close(load.in_flight, now)
        elif self._probing or self._before is not None or not self._too_many():
            return False
        else:
            self._cut(load.in_flight, now)
        return True

    def _is_closed(self, now: float) -> bool:
        """Return whether no attempts are currently accepted."""
        sample = self._sample
        if self._probing:
            return self._probes.refused >= self._probes.attempts
        if self._accident:
            return True
        if self._row >= FEW and now - self._row_began >= 2.0 * self._round:
            return True
        long = now - sample.began >= self._round / 2
        return long and sample.refused >= FEW and sample.share >= CLOSED

    @property
    def _accident(self) -> bool:
        """Whether a refusal means that the provider's window is full, since declared rates are kept."""
        return self._declared and not self._probing and not self._tolerated and self._before is None

    def _too_many(self) -> bool:
        return self._sample.exceeds(self._tolerance, least=1 if self.limiting else FEW)

    @property
    def _tolerance(self) -> float:
        return ALWAYS_TOLERATED + 1.25 * self._tolerated

    def _close(self, in_flight: float, now: float) -> None:
        """Pause all attempts."""
        asked = max(0.0, self._asked - now)
        if self._accident:
            asked = min(asked or FIRST_PAUSE_SECONDS, ACCIDENT_SECONDS)
        longest = max(SHORT_PAUSE_SECONDS, 4.0 * asked) if asked else LONGEST_PAUSE_SECONDS
        own = (asked or FIRST_PAUSE_SECONDS) * 2.0 ** min(30, max(0, self._pauses - TRUSTED_PAUSES + 1))
        self._pauses += 1
        self.closed_until = now + max(asked, min(own, longest, LONGEST_PAUSE_SECONDS))
        if not self._probing:
            self._loads = self.rate, self.ceiling
            self._ceiling_knee = CUT * self.ceiling
        self._before = None
        self._probing = True
        self._tokens = float(PROBES)
        self.rate, self.ceiling = PROBES / ROUND_SECONDS, float(PROBES + in_flight)
        self._asked, self._cut_at = 0.0, self.closed_until
        self._probes.restart(self.closed_until)
        if not self._declared:
            self._sample.restart(self.closed_until)
        self._recent = Average(self.closed_until, RECENT_SECONDS)
        self._row = 0

    def _open(self, now: float) -> None:
        """Resume after a pause, once attempts have been accepted."""
        cycle = max(ROUND_SECONDS, now - self._cycle_began)
        self._cycles += not self._declared
        self._probing, self._pauses, self._cut_at = False, 0, now
        self._knee, self._scale = math.inf, SHORTEST_SCALE_SECONDS
        if self._cycles >= WINDOWS:
            self._knee = max(PROBES, self._accepted) / cycle
            self._scale = min(LONGEST_SCALE_SECONDS, max(SHORTEST_SCALE_SECONDS, cycle))
        self.rate = min(self.rate * (1.0 - self._probes.share), self._knee)
        if self._declared:
            self.rate, self.ceiling = self._loads
        self._cycle_began, self._accepted = now, 0

    def _cut(self, in_flight: float, now: float) -> None:
        """Reduce the load to slightly below the accepted one."""
        self._before = self.rate, self.ceiling, self._sample.share
        accepted = self._recent.per_second(now)
        if self.rate == math.inf:  # accepted attempts were not bounded by the rate
            accepted = max(accepted, PROBES / ROUND_SECONDS)
        elif self._recent.seconds < SURE_SECONDS and accepted < self.rate / 2.0:
            accepted, self._before = self.rate / 2.0, None  # the rate is too uncertain for a trial
        self.rate = max(0.5, CUT * min(self.rate, accepted))
        self.ceiling = max(float(PROBES), CUT * min(self.ceiling, in_flight))
        self._ceiling_knee = 0.0
        self._knee, self._cut_at, self._tokens = CUT * self._usual.per_second(now), now, 0.0
        self._sample.restart(now + self._round)  # skip refusals of attempts that began before the cut

    def _review(self, now: float) -> None:
        """Reduce the load below the declared rates if too many attempts are refused in the long run."""
        if self._sample.complete(now) and self._too_many():
            self._cut(math.inf, now)

    def _end_trial(self, now: float) -> None:
        """Measure the share that is refused at any load from the attempts after a cut."""
        sample = self._sample
        if self._before is None or not sample.complete(now):
            return
        rate, ceiling, share = self._before
        self._before = None
        if 0.5 * share <= sample.share <= MOST_TOLERATED:
            self.rate, self.ceiling, self._tolerated = rate, ceiling, max(self._tolerated, sample.share)
        else:
            self._tolerated *= 0.5

    def _refill(self, seconds: float) -> None:
        burst = max(1.0, self.rate * BURST_SECONDS)
        self._tokens = max(min(self._tokens, burst), min(self._tokens + seconds * self.rate, burst))

    def _grow(self, seconds: float, now: float) -> None:
        doubling = 2.0 ** (seconds / self._round)
        if self.ceiling < self._ceiling_knee:
            self.ceiling = min(self._ceiling_knee, self.ceiling * doubling)
        if self.rate < self._knee:
            self.rate = min(self._knee, self.rate * doubling)
            return
        calm, scale = (now - self._cut_at) / self._scale, SHORTEST_SCALE_SECONDS / self._scale
        factor = 1.0 + seconds * GROWTH_PER_SECOND * scale * 2.0**calm
        self.rate, self.ceiling = self.rate * factor, self.ceiling * factor
