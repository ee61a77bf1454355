"""`hops`: what the framework alone costs; see `benchmarks.workloads.hops`."""

from benchmarks.harness.points import Bench, HopsPoint, Setting
from benchmarks.harness.run import common, perform, scratch
from benchmarks.workloads.hops import HOPS, program
from peerloom.services.llm.simulated.service import SimulatedService


async def run(setting: Setting) -> HopsPoint:
    """Measure one setting once."""
    with scratch() as folder:
        work = await perform(
            program(),
            HOPS.source(setting.tasks),
            SimulatedService(),  # nobody calls it
            setting,
            path=folder / "run",
            name="bench-hops",
        )
    return HopsPoint(
        **common(BENCH, setting, work),
        hops_per_second=work.hops / work.seconds,
    )


BENCH = Bench(
    name="hops",
    placements=("spread", "packed"),
    in_flight=(100, 1_000),
    tasks=lambda in_flight: max(4_000, 12 * in_flight),
    runs=3,
    run=run,
)
