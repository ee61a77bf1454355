"""The programs that benchmarks start and watch: Peerloom at each workload, in a process of its own."""
