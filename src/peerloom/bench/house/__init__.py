"""The benchmark house, `peerloom bench all`: every system on the same work, in turn, in one table."""
