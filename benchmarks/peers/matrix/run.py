"""Matrix (`fair-matrix`) on its own workload without a model, `coral_mmlu_pro_dummy`, as it comes.

Only where it reads and writes, and how wide it is, is changed; its rows are ours. What is alike: four roles
in their order, statements of 1,024 characters give or take a fifth, the same chances to agree, so 2.8
statements and 9.4 hops a task; every role in a process of its own. What is not: its statements are one text
cut to length, and its last task counts as done when the sink takes it up, ours when the row is on disk.
"""

import asyncio
import json
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import ray
from hydra import compose, initialize_config_dir
from matrix.agents.p2p_agents import P2PAgentFramework

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import work


def numbered(spec, path):
    """The questions as it wants them: with an id."""
    rows = ({"question_id": number, **row} for number, row in enumerate(spec.rows_))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def simulate(spec):
    """Run it; where its output is."""
    folder = Path(spec.folder)
    rows, output = folder / "questions.jsonl", folder / "output.jsonl"
    numbered(spec, rows)
    package = find_spec("matrix.agents")
    configs = Path(package.submodule_search_locations[0], "config").absolute()
    with initialize_config_dir(str(configs), version_base=None):
        config = compose(
            "coral_mmlu_pro_dummy",
            [
                "dataset.name=json",
                "dataset.split=train",
                f"dataset.data_files={rows}",
                f"dataset.cut_off={spec.tasks}",
                f"max_concurrent_tasks={spec.in_flight}",
                f"output.path={output}",
                f"matrix.matrix_dir={folder}",
            ],
        )
    # Its actors reserve ten cores and more between them; Ray does not check that they are there.
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False)
    asyncio.run(P2PAgentFramework(0, config).run_simulation())
    ray.shutdown()
    return output


def main(spec):
    """Its figures, from its output: first task's creation to last one's arrival at its sink.

    The history of a task has one message that opens it and one for each turn. That is also how often the
    task was handed on: to its first agent, from agent to agent, to the sink.
    """
    with redirect_stdout(sys.stderr):
        output = simulate(spec)
    rows = [json.loads(line) for line in output.open()]
    assert len(rows) == spec.tasks, (len(rows), spec.tasks)
    said = {
        "begin": min(row["creation_timestamp"] for row in rows),
        "end": max(row["finish_timestamp"] for row in rows),
        "tasks": len(rows),
        "hops": sum(len(row["history"]) for row in rows),
    }
    print("\n" + json.dumps(said), flush=True)


main(work.spec())
