"""Keeps a Ray cluster without GPUs for the tests: a head that has no CPUs, and nodes, all on this machine.

Run by the engines' Python. It prints a line of JSON when it is up. A line on its standard input adds a node;
when that closes, the cluster ends.
"""

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

RESOURCES = {"num_cpus": 4, "num_gpus": 1}  # Ray only counts GPUs, it does not look for them


def raylet(node: Any) -> int:
    """The process id of a node's raylet."""
    return node.all_processes["raylet"][0].process.pid


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(**RESOURCES) for _ in range(2)]
    head = raylet(cluster.head_node)
    told = {"address": cluster.address, "head": head, "raylets": [raylet(node) for node in nodes]}
    print(json.dumps(told), flush=True)
    for _ in sys.stdin:
        print(json.dumps(raylet(cluster.add_node(**RESOURCES))), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
