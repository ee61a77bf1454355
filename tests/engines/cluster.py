"""Keeps a Ray cluster without GPUs for the tests: a head that has no CPUs, and nodes, all on this machine.

Run by the engines' Python. It prints a line of JSON when it is up. A line on its standard input adds a node;
when that closes, the cluster ends.
"""

import json
import sys
import threading
import time
from typing import Any

from ray.cluster_utils import Cluster

RESOURCES = {"num_cpus": 4, "num_gpus": 1}  # Ray only counts GPUs, it does not look for them


def raylet(node: Any) -> int:
    """The process id of a node's raylet."""
    return node.all_processes["raylet"][0].process.pid


def reap(nodes: list[Any]) -> None:
    """Reap raylets that were killed, as init does; workers take a zombie for alive."""
    while True:
        for node in nodes:
            for each in node.all_processes.get("raylet", ()):
                each.process.poll()
        time.sleep(0.5)


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(**RESOURCES) for _ in range(2)]
    threading.Thread(target=reap, args=(nodes,), daemon=True).start()
    head = raylet(cluster.head_node)
    told = {"address": cluster.address, "head": head, "raylets": [raylet(node) for node in nodes]}
    print(json.dumps(told), flush=True)
    for _ in sys.stdin:
        nodes.append(cluster.add_node(**RESOURCES))
        print(json.dumps(raylet(nodes[-1])), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
