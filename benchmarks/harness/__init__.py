"""What all benchmarks share: runs, meters of CPU time, memory and traffic, the simulated model, output."""
