"""The work that is measured: its rows, and the programs that do it with Peerloom."""

from benchmarks.workloads.hops import HOPS
from benchmarks.workloads.mini_coral import MINI_CORAL
from benchmarks.workloads.nr import NR
from benchmarks.workloads.tau import TAU

COMPARED = {each.name: each for each in (HOPS, MINI_CORAL, NR, TAU)}
"""The workloads that other systems do too."""
