"""Benchmarks of Peerloom itself: `peerloom bench`."""
