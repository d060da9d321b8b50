"""The list of benchmarks. Work is a fixed amount, never a fixed time, so that the time can be compared."""

from measure import Benchmark
from real import workloads

# Name, program, arguments; {n} marks the argument that --quick divides, with its full value.
PROGRAMS = [
    ("server", "server 2 5000 20000 {n}", 350),
    ("xfer", "xfer 1 100 {n}", 40000),
    ("xfer-crowd", "xfer 6 100 {n}", 20000),
    ("random-live", "random-live 1 200000 {n}", 4000000),
    ("random-live-mt", "random-live 2 100000 {n}", 3000000),
    ("burst-lifo", "burst lifo 1 40000 {n}", 200),
    ("burst-fifo", "burst fifo 1 40000 {n}", 200),
    ("burst-random", "burst random 1 40000 {n}", 150),
    ("burst-random-mt", "burst random 2 20000 {n}", 250),
    ("pair-16", "pair 1 {n} 16", 30000000),
    ("pair-mixed", "pair 1 {n}", 30000000),
    ("pair-mixed-mt", "pair 2 {n}", 25000000),
    ("share-active", "false-share active 2 {n} 500", 120000),
    ("share-passive", "false-share passive 2 {n} 500", 120000),
    ("many-threads", "many-threads 64 {n} 200", 6000),
    ("large", "large {n} 64 40 2048", 20000),
    ("huge", "large {n} 12 4096 65536", 80),
    ("vector-grow", "vector-grow {n} 12 4096", 60000000),
    ("compiler", "compiler {n} 8000", 60),
    ("strings", "strings {n} 40 50000", 120000),
    ("bignum", "bignum {n} 150", 20000),
    ("tree", "tree 1 {n} 17", 12),
    ("tree-mt", "tree 2 {n} 16", 16),
    ("calloc-mix", "calloc-mix {n} 5000 32", 400000),
]


def benchmarks(scale: int) -> list[Benchmark]:
    """All benchmarks; `scale` divides the work."""
    listed = []
    for name, command, full in PROGRAMS:
        argv = tuple(command.format(n=max(1, full // scale)).split())
        listed.append(Benchmark(name, argv))
    return listed + workloads.benchmarks(scale)
