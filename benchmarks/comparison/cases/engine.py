"""The row of the real engine: `coral` on llama.cpp against a client that only sends the same prompts.

As many dialogues are in flight as there are slots, which is the default: so a dialogue finds its beginning in
the slot it has just left. With more of them, each call pushes another dialogue out.
"""

from functools import partial

from benchmarks.comparison.case import Case, Figures, Outcome, Side
from benchmarks.comparison.job import Job, measured
from benchmarks.comparison.rows import Row, missing
from benchmarks.comparison.rows import at_least as at_least_share
from benchmarks.comparison.sides import US, Scope
from benchmarks.harness.process import OURS
from benchmarks.workloads.base import Rows, Workload
from benchmarks.workloads.mini_coral import LETTERS, questions
from peerloom.services.llm.simulated.prose import prose

SLOTS = 16


def _questions(count: int) -> Rows:
    for number, row in enumerate(questions(count)):
        yield {**row, "question": f"{prose(160, number)}?", "answer": LETTERS[number % 4]}


CORAL = Workload("engine", _questions, spec={"slots": SLOTS})


def cases(scope: Scope) -> list[Case]:
    """Return one case: a single process measures both, beside the same idle Ray."""
    tasks, rounds = (24, 1) if scope.quick else (32, 3)
    job = Job(CORAL, tasks, SLOTS, more={"rounds": rounds}, limit=1_800)
    rows = partial(_rows, f"{tasks} dialogues of {rounds} round{'s' if rounds > 1 else ''}")
    return [Case("real engine", [Side(US, partial(_measured, job))], rows, runs=scope.times(1))]


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
