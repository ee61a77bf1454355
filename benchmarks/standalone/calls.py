"""`calls`: how busy the framework keeps a model that answers over HTTP.

The work is `benchmarks.workloads.mini_coral`. The model is `peerloom simulate-llm` in a process of its own,
every reply with usage and after the same latency.

With C tasks in flight and a latency of L seconds no more than C / L calls a second are possible; the
share of that ideal is taken from the arrival of the first call to the reply to the last, ramps included,
by the model's own log. A hop is counted as in `benchmarks.workloads.hops`.
"""

from benchmarks.harness.cpu import CpuMeter
from benchmarks.harness.points import Bench, CallsPoint, Setting
from benchmarks.harness.run import common, perform, scratch
from benchmarks.harness.simulated_llm import served, simulated_llm
from benchmarks.workloads.mini_coral import CALLS, MINI_CORAL, REPLY_TOKENS, program
from peerloom.services.llm.hosted.providers import OpenAIService

LATENCY = 0.5


async def run(setting: Setting) -> CallsPoint:
    """Measure one setting once."""
    with scratch() as folder:
        log = folder / "calls.jsonl"
        async with (
            simulated_llm(log, latency=LATENCY, tokens=REPLY_TOKENS) as (url, pid),
            CpuMeter(without=pid) as cpu,
        ):
            llm, source = OpenAIService(base_url=url, api_key="none"), MINI_CORAL.source(setting.tasks)
            work = await perform(program(), source, llm, setting, path=folder / "run", name="bench-calls")
        calls, first, last, _ = served(log, CALLS * setting.tasks)
    per_second = calls / (last - first)
    return CallsPoint(
        **common(BENCH, setting, work),
        latency_seconds=LATENCY,
        calls_per_second=per_second,
        share_of_ideal=per_second / (setting.in_flight / LATENCY),
        cpu_seconds_per_1000_calls=cpu.used(first, last) * 1_000 / calls,
    )


BENCH = Bench(
    name="calls",
    placements=("packed",),
    in_flight=(100, 1_000, 5_000),
    tasks=lambda in_flight: 5 * in_flight,
    runs=1,
    run=run,
)
