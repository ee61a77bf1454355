"""The benchmark house, `peerloom bench all`: every system on the same work, one after the other, in one table."""
