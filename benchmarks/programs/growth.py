"""How cost grows: with the number of tasks that are done, and with the length of a dialogue.

One run each, and moments in it: CPU time between two of them is what so many tasks, or turns, cost at that
point. So nothing is said of starting up, and nothing is hidden by it.
"""

from typing import Any

from benchmarks.programs.runner import Spec, carry_out, run_path
from benchmarks.workloads.plain import many_turns, one_turn
from peerloom.sink.read import read_rows


async def many_tasks(spec: Spec) -> dict[str, Any]:
    """Run tasks of one turn; `moments` are when so many of them were done."""
    said = await carry_out(one_turn(), spec)
    finished = sorted(row["timing"]["finished"] for row in read_rows(run_path(spec)))
    return {**said, "moments": {str(count): finished[count - 1] for count in spec["counts"]}}


async def long_dialogues(spec: Spec) -> dict[str, Any]:
    """Run all tasks at once, to the last turn; `moments` are when they had taken so many turns each.

    A moment is taken when as many turns were begun by all tasks together: some are ahead of it, some behind.
    """
    said = await carry_out(many_turns(spec["turns"]), spec)
    begun = sorted(turn["started"] for row in read_rows(run_path(spec)) for turn in row["turns"])
    return {
        **said,
        "moments": {
            str(count): begun[min(count * spec["tasks"], len(begun) - 1)] for count in spec["counts"]
        },
    }
