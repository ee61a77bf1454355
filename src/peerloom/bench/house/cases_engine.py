"""The row of the real engine: `coral` on llama.cpp against a client that only sends the same prompts.

As many dialogues are in flight as there are slots, which is the default: so a dialogue finds its beginning in
the slot it has just left. With more of them, each call pushes another dialogue out.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from peerloom.bench.house.cases import Case, Figures, Outcome
from peerloom.bench.house.job import Job, measured
from peerloom.bench.house.rows import Row, missing
from peerloom.bench.house.rows import at_least as at_least_share
from peerloom.bench.house.sides import OURS, US, Scope, side
from peerloom.bench.house.workloads import Workload
from peerloom.services.llm.prose import prose

SLOTS = 16
LETTERS = "ABCD"


def _questions(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        options = [prose(40, number * len(LETTERS) + n) for n in range(len(LETTERS))]
        yield {"question": f"{prose(160, number)}?", "options": options, "answer": LETTERS[number % 4]}


CORAL = Workload("engine", _questions, lambda rows: 0, spec={"slots": SLOTS})


def cases(scope: Scope) -> list[Case]:
    """One case: both are measured by one process, beside the same idle Ray."""
    tasks, rounds = (24, 1) if scope.quick else (32, 3)
    job = Job(CORAL, tasks, SLOTS, more={"rounds": rounds}, limit=1_800)
    rows = partial(_rows, f"{tasks} dialogues of {rounds} round{'s' if rounds > 1 else ''}")
    return [Case("real engine", [side(US, partial(_measured, job))], rows, runs=scope.times(1))]


async def _measured(job: Job) -> Figures:
    found = await measured(OURS, job)
    return {**found, "share": found["tokens_per_second"] / found["bare_tokens_per_second"]}


def _rows(what: str, outcome: Outcome) -> list[Row]:
    figure = f"coral on llama.cpp, {SLOTS} slots: tokens/s against a bare client with the same prompts"
    found, reach = outcome[US], at_least_share(0.97)
    value, bare = found.get("tokens_per_second"), found.get("bare_tokens_per_second")
    peer = "bare client"
    if value is None:
        return [missing(figure, reach, found.reason, peer)]
    share = Row(f"{figure}: share", found.get("share"), peer, 1.0, reach, found.spread("share"), what)
    rates = Row(figure, value, peer, bare, spread=found.spread("tokens_per_second"))
    return [rates, share]
