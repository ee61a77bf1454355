"""A plain Ray call that carries a history of 5 KB or of 200 KB: how much more the long one costs."""

import sys
import time
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import work

TURN = b"x" * 1_000
CALLS = 2_000
AT_ONCE = 50


@ray.remote
class Peer:
    def take(self, turns):
        return len(turns)


def seconds(peer, turns):
    """Of one call, on average; some are always under way."""
    begin, under_way = time.perf_counter(), []
    history = [bytes(bytearray(TURN)) for _ in range(turns)]
    for _ in range(CALLS):
        under_way.append(peer.take.remote(history))
        if len(under_way) == AT_ONCE:
            ray.get(under_way)
            under_way.clear()
    ray.get(under_way)
    return (time.perf_counter() - begin) / CALLS


def main(spec):
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    peer = Peer.remote()
    ray.get(peer.take.remote([]))
    begin = time.time()
    seconds(peer, 5)
    short, long = seconds(peer, 5), seconds(peer, 200)
    work.said(begin, spec.tasks, figures={"long_by_short": long / short, "short_us": short * 1e6})


main(work.spec())
