"""Benchmarks of Peerloom, run from a checkout: `python -m benchmarks --help`."""
