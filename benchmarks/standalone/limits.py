"""`limits`: how long a run takes with a provider that refuses calls, and how often it asks.

Mini-Coral (`benchmarks.workloads.mini_coral`), 40 tasks at once and six calls each, asked of `peerloom
simulate-llm` with a latency of 0.1 s. A case is a rule of refusal, the form in which refusals state the wait,
an engine, and a number of peers. The same calls are made without refusals, by the same engine and peers, and
by a plain client (`plain_client`). All times are from the arrival of the first attempt to the last answer, by
the server's own log, so the start of a run is left out.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.harness.output import new_table, print_json, significant
from benchmarks.harness.points import BenchError, Setting
from benchmarks.harness.run import perform, scratch
from benchmarks.harness.simulated_llm import Asked, asked, simulated_llm
from benchmarks.standalone.plain_client import ask_plainly
from benchmarks.standalone.refusals import NEVER, Case, Engine, chosen
from benchmarks.workloads.mini_coral import CALLS, MINI_CORAL, program
from peerloom.errors import PeerloomError
from peerloom.services.llm.hosted.providers import OpenAIService

LATENCY = 0.1
TASKS = 40
REPLY_TOKENS = 30
RETRY_AFTER = {"fraction": 0.25}  # seconds that a refusal asks for, unless the rule knows them; else 1


@dataclass(frozen=True)
class LimitsPoint:
    """A case's medians.

    `share_refused` is of the attempts; `allowance_used` is the calls served, of those that a window lets in
    within the time. `times` is the time in times of the longest of the three others.
    """

    refusals: str
    retry_after_as: str
    engine: Engine
    peers: int
    calls: int
    seconds: float
    unrefused_seconds: float
    ideal_seconds: float
    plain_seconds: float
    times: float
    share_refused: float
    plain_share_refused: float
    allowance_used: float | None

    def as_json(self) -> Mapping[str, object]:
        """Return the point as `--json` prints it, with four significant digits."""
        return {
            "bench": "limits",
            **{name: significant(value, 4) for name, value in asdict(self).items()},
        }


class Measured:
    """Measures each run once: those without refusals and the plain clients serve several cases."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._known: dict[tuple[object, ...], Asked] = {}

    def ours(self, case: Case, seed: int) -> Asked:
        """Measure a run of Peerloom."""
        return self._once(("ours", case, seed), case, seed, plainly=False)

    def unrefused(self, case: Case, seed: int) -> Asked:
        """Measure the same run without refusals."""
        return self.ours(replace(case, rule=NEVER, retry_after_as="seconds"), seed)

    def plain(self, case: Case, seed: int) -> Asked:
        """Measure the same calls by the plain client."""
        return self._once(("plain", case.rule, case.retry_after_as, seed), case, seed, plainly=True)

    def _once(self, key: tuple[object, ...], case: Case, seed: int, *, plainly: bool) -> Asked:
        if key not in self._known:
            self._known[key] = asyncio.run(measure(case, seed, self._tasks, plainly=plainly))
        return self._known[key]


async def measure(case: Case, seed: int, tasks: int, *, plainly: bool) -> Asked:
    """Make the calls of so many tasks once, with a server of their own.

    Raises:
        BenchError: if not every call was answered, or not every task completed.
    """
    behavior = {**case.rule.behavior, "retry_after": RETRY_AFTER.get(case.retry_after_as, 1.0)}
    with scratch() as folder:
        log, shape = folder / "calls.jsonl", {"engine": case.engine, "peers": case.peers}
        async with simulated_llm(
            log,
            latency=LATENCY,
            tokens=REPLY_TOKENS,
            seed=seed,
            retry_after_as=case.retry_after_as,
            **behavior,
        ) as (url, _):
            if plainly:
                await ask_plainly(url, CALLS * tasks, seed)
            else:
                llm, setting = OpenAIService(base_url=url, api_key="none"), Setting("packed", tasks, tasks)
                source, path = MINI_CORAL.source(tasks), folder / "run"
                await perform(program(), source, llm, setting, path=path, name="bench-limits", shape=shape)
        seen = asked(log)
    if seen.served != CALLS * tasks:
        raise BenchError(f"{CALLS * tasks} calls were due, the model has answered {seen.served}")
    return seen


def point(
    case: Case, ours: Sequence[Asked], unrefused: Sequence[Asked], plain: Sequence[Asked]
) -> LimitsPoint:
    """Return the medians of some measurements of a case."""
    calls, seconds = ours[0].served, _seconds(ours)
    ideal = case.rule.ideal(calls, LATENCY)
    allowed = case.rule.allowed(seconds)
    return LimitsPoint(
        refusals=case.rule.name,
        retry_after_as=case.retry_after_as,
        engine=case.engine,
        peers=case.peers,
        calls=calls,
        seconds=seconds,
        unrefused_seconds=_seconds(unrefused),
        ideal_seconds=max(ideal, _seconds(unrefused)),
        plain_seconds=_seconds(plain),
        times=seconds / max(ideal, _seconds(unrefused), _seconds(plain)),
        share_refused=_share(ours),
        plain_share_refused=_share(plain),
        allowance_used=calls / allowed if allowed is not None else None,
    )


def _seconds(seen: Sequence[Asked]) -> float:
    return median(each.seconds for each in seen)


def _share(seen: Sequence[Asked]) -> float:
    return median(each.refused / each.attempts for each in seen)


def main(
    *,
    everything: bool = False,
    engine: Engine | None = None,
    peers: int | None = None,
    only: str = "",
    tasks: int | None = None,
    runs: int | None = None,
    json: bool = False,
) -> None:
    """Measure and print.

    Args:
        everything: all cases, not only the representative ones.
        engine: with this engine only.
        peers: with so many peers only.
        only: cases with this in their name only.
        tasks: of each run, instead of 40.
        runs: so many of each case; the medians are printed.
        json: one JSON object a line for each case on standard output, instead of a table.

    Raises:
        ConfigError: if there is no such case.
        BenchError: at the end, if a case could not be measured.
    """
    progress, measured, points = Console(stderr=True), Measured(tasks or TASKS), list[LimitsPoint]()
    cases, seeds, failed = chosen(everything=everything, engine=engine, peers=peers, only=only), runs or 1, 0
    for number, case in enumerate(cases, 1):
        progress.print(f"limits: {case.name} ({number} of {len(cases)})")
        try:
            found = _point(case, measured, seeds)
        except PeerloomError as error:
            failed += 1
            progress.print(f"limits: {case.name}: {error}", style="red")
            continue
        points.append(found)
        if json:
            print_json(found.as_json())
    if not json:
        Console().print(table(points, seeds))
    if failed:
        raise BenchError(f"{failed} of {len(cases)} cases could not be measured, see above")


def _point(case: Case, measured: Measured, runs: int) -> LimitsPoint:
    """Measure a case; the sides take turns, so a noisy minute hits all of them."""
    sides = measured.unrefused, measured.plain, measured.ours
    seen = [[side(case, seed) for side in sides] for seed in range(1, runs + 1)]
    unrefused, plain, ours = zip(*seen, strict=True)
    return point(case, ours, unrefused, plain)


def table(points: Sequence[LimitsPoint], runs: int) -> Table:
    """Return the points as a table."""
    what = "one run each" if runs == 1 else f"medians of {runs} runs"
    title = f"python -m benchmarks limits: {what}"
    caption = "times: of the longest of the run without refusals, the ideal, and the plain client"
    shown = new_table(title, caption=caption, collapse_padding=True)
    for text in ("refused", "Retry-After", "engine"):
        shown.add_column(text)
    figures = ("s", "without\nrefusals", "ideal", "plain\nclient", "times", "refused", "plain\nrefused")
    for text in ("peers", *figures, "allowance\nused"):
        shown.add_column(text, justify="right")
    for each in points:
        seconds = (each.seconds, each.unrefused_seconds, each.ideal_seconds, each.plain_seconds, each.times)
        shares = (each.share_refused, each.plain_share_refused, each.allowance_used)
        shown.add_row(
            *(each.refusals, each.retry_after_as, each.engine, f"{each.peers}"),
            *(f"{value:.2f}" for value in seconds),
            *("" if value is None else f"{value:.0%}" for value in shares),
        )
    return shown
