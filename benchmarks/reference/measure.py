"""Measures Matrix (`fair-matrix`), the reference, on its own workload without a model; see README.md here.

Run by the Python of the reference's own environment; it knows nothing of Peerloom. Prints one JSON object,
with the keys of `peerloom bench hops --json`.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import ray
from hydra import compose, initialize_config_dir
from matrix.agents.p2p_agents import P2PAgentFramework

WORDS = "a the of each sum rate ratio value bound force field price phase charge is has gives takes".split()


def questions(path: Path, count: int) -> None:
    """Write made-up questions of the shape its data set has: some hundred characters and ten options."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            row = {
                "question_id": number,
                "question": " ".join(rng.choices(WORDS, k=50)),
                "options": [" ".join(rng.choices(WORDS, k=8)) for _ in range(10)],
                "answer": rng.choice("ABCDEFGHIJ"),
            }
            file.write(json.dumps(row) + "\n")


def simulate(folder: Path, in_flight: int, tasks: int) -> Path:
    """Run its `coral_mmlu_pro_dummy`, changed in nothing but where it reads and writes and how wide it is."""
    rows, output = folder / "questions.jsonl", folder / "output.jsonl"
    questions(rows, tasks)
    package = find_spec("matrix.agents")
    assert package is not None and package.submodule_search_locations
    configs = Path(package.submodule_search_locations[0], "config").absolute()
    with initialize_config_dir(str(configs), version_base=None):
        config = compose(
            "coral_mmlu_pro_dummy",
            [
                "dataset.name=json",
                "dataset.split=train",
                f"dataset.data_files={rows}",
                f"dataset.cut_off={tasks}",
                f"max_concurrent_tasks={in_flight}",
                f"output.path={output}",
                f"matrix.matrix_dir={folder}",
            ],
        )
    # Its actors reserve ten cores and more between them; Ray does not check that they are there.
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False)
    asyncio.run(P2PAgentFramework(0, config).run_simulation())
    ray.shutdown()
    return output


def point(output: Path, in_flight: int) -> dict[str, object]:
    """The figures in its output: from the first task's creation to the last one's arrival at its sink.

    The history of a task has one message that opens it and one for each turn. That is also how often the
    task was handed on: to its first agent, from agent to agent, to the sink.
    """
    rows = [json.loads(line) for line in output.open()]
    hops = sum(len(row["history"]) for row in rows)
    seconds = max(row["finish_timestamp"] for row in rows) - min(row["creation_timestamp"] for row in rows)
    return {
        "bench": "hops",
        "system": "fair-matrix",
        "placement": "spread",
        "in_flight": in_flight,
        "tasks": len(rows),
        "hops_per_task": round(hops / len(rows), 4),
        "tasks_per_second": round(len(rows) / seconds, 3),
        "hops_per_second": round(hops / seconds, 2),
    }


def main() -> None:
    """Measure one point."""
    parser = argparse.ArgumentParser(description="Measure the reference.")
    parser.add_argument("--in-flight", type=int, default=1_000)
    parser.add_argument("--tasks", type=int, default=1_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reference-") as folder:
        with redirect_stdout(sys.stderr):
            output = simulate(Path(folder), asked.in_flight, asked.tasks)
        print(json.dumps(point(output, asked.in_flight)), flush=True)


if __name__ == "__main__":
    main()
