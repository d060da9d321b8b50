"""Real programs as benchmarks."""
