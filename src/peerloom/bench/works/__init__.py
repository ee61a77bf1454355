"""Our side of the benchmark house: what Peerloom runs of each workload, in a process of its own."""
