"""`affinity`: how much is saved when a conversation stays with the replica that has its prefix in the cache.

Dialogues of the recipe Coral, over the first rows of its sample (again from the start if there are more tasks
than rows), asked of two llama.cpp servers on this machine with few slots each. Statements are short, and the
matcher finds that the two never agree: so each dialogue has all its rounds, and every run the same number of
calls, 12 a task. These go where their conversation is at home (`llm.routing.affinity=conversation`), and, in
turn, wherever fewest are under way (`none`). Prompt tokens that a server finds in its cache are not
evaluated; the others are what a call costs before its first word.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import orjson

from benchmarks.harness.points import AffinityPoint, Bench, Setting
from benchmarks.harness.run import common, perform, scratch
from peerloom.agents.function import FunctionAgent
from peerloom.recipes.coral.recipe import RECIPE
from peerloom.runtime.program import Program
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.routing import Affinity
from peerloom.services.llm.llamacpp.service import LlamaCppService
from peerloom.services.processes.spawn import Spawner
from peerloom.sink.read import read_totals
from peerloom.source.memory import RowsSource

REPLICAS = 2
SLOTS = 2  # of each
MODEL = "smollm2-135m"
ROUNDS = 3  # a statement of each in every one
STATEMENT_TOKENS = 24


class Routed(LlamaCppService):
    """llama.cpp servers with calls routed by the given affinity."""

    def __init__(self, affinity: Affinity) -> None:
        super().__init__(model=MODEL, replicas=REPLICAS, slots=SLOTS)
        self._affinity: Affinity = affinity

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Start the servers."""
        spec = await super().start(name, spawner, notify, log_dir)
        return replace(spec, routing=replace(spec.routing, affinity=self._affinity))


async def run(setting: Setting) -> AffinityPoint:
    """Measure one setting once."""
    llm = Routed("none" if setting.without == "affinity" else "conversation")
    with scratch() as folder:
        path = folder / "run"
        source = RowsSource(questions(setting.tasks))
        work = await perform(program(), source, llm, setting, path=path, name="bench-affinity")
        tallies = read_totals(path).agents.values()
    prompt, cached = sum(each.prompt for each in tallies), sum(each.cached for each in tallies)
    return AffinityPoint(
        **common(BENCH, setting, work),
        prefix_hit_rate=cached / prompt,
        prompt_tokens=float(prompt),
        evaluated_tokens=float(prompt - cached),
        tokens_per_second=sum(each.completion for each in tallies) / work.seconds,
        wall_seconds=work.seconds,
    )


def program() -> Program:
    """Return Coral with two who never agree."""
    coral = RECIPE.build({"max_rounds": ROUNDS, "max_tokens": STATEMENT_TOKENS})
    return replace(coral, agents={**coral.agents, "matcher": FunctionAgent(lambda task: False)})


def questions(tasks: int) -> Sequence[dict[str, object]]:
    """Return so many rows of the recipe's sample."""
    assert RECIPE.sample is not None
    rows = [orjson.loads(line) for line in RECIPE.sample.read_bytes().splitlines()]
    return list(islice(cycle(rows), tasks))


BENCH = Bench(
    name="affinity",
    placements=("packed",),
    in_flight=(8,),
    tasks=lambda in_flight: 3 * in_flight,
    runs=3,
    run=run,
    compared="affinity",
)
