"""Benchmarks of Peerloom alone: hops, calls, recovery, affinity, limits, offload."""
