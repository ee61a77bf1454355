"""Tasks that only wait for a model that takes a minute, to see what memory a task in flight needs."""

from typing import Any

from peerloom.bench.works.plain import one_call
from peerloom.bench.works.running import Spec, carry_out
from peerloom.services.llm.simulated import SimulatedService


async def run(spec: Spec) -> dict[str, Any]:
    """All tasks at once, the model in the process that calls it."""
    return await carry_out(one_call(), spec, SimulatedService(latency=spec["latency"], tokens=30))
