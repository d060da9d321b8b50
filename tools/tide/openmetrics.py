"""Figures of processes on tidemalloc as metrics, by prometheus_client: OpenMetrics text, or Prometheus's older form.

Every series has the labels `name` (of the process) and `pid`, so that two processes of one name stay apart and the
counters of a new process start at zero as a series of their own. Sum over `pid` after rate(), not before. Figures by
size class and by thread are left to `tide stat`: there would be a hundred series for every process.
"""

from dataclasses import dataclass

from . import status
from .process import ProcessError
from .window import KEEPER_STATES, POOL_STATES, TIERS

LABELS = ("name", "pid")


@dataclass(frozen=True)
class Family:
    """One metric: its unit is the end of its name, and a counter is exposed with `_total` behind it."""

    name: str
    kind: str  # "gauge" or "counter"
    unit: str  # "" for a plain number
    help: str
    labels: tuple  # besides LABELS
    values: object  # figures -> [(values of `labels`, value)]


def _one(name, divisor=1):
    return lambda figures: [((), figures[name] / divisor)]


def _tiers(pattern, scale=1, tiers=TIERS):
    return lambda figures: [((tier,), figures[pattern.format(tier)] * scale) for tier in tiers]


def _gauge(name, unit, help, values, labels=()):
    return Family(f"tidemalloc_{name}", "gauge", unit, help, labels, values)


def _counter(name, unit, help, values, labels=()):
    return Family(f"tidemalloc_{name}", "counter", unit, help, labels, values)


# From outside: of every process, by the names of Process.rollup().
OUTSIDE = (
    _gauge("resident_bytes", "bytes", "Memory of the process in RAM (Rss).", _one("rss")),
    _gauge("proportional_bytes", "bytes", "The same, with each shared page divided by its users (Pss).", _one("pss")),
    _gauge("private_dirty_bytes", "bytes", "Resident memory that it alone has written to.", _one("private_dirty")),
    _gauge("anonymous_huge_bytes", "bytes", "Resident memory in transparent huge pages.", _one("anon_huge")),
    _gauge("swapped_bytes", "bytes", "Memory of the process that is swapped out.", _one("swap")),
)

# From inside: by the names of struct tide_stats.
INSIDE = (
    _gauge("allocated_bytes", "bytes", "Live blocks, rounded up to their usable size.", _one("allocated_bytes")),
    _gauge("active_bytes", "bytes", "Spans and runs that hold at least one live block.", _one("active_bytes")),
    _gauge("retained_bytes", "bytes", "Free memory that is kept, perhaps resident.", _one("retained_bytes")),
    _gauge("metadata_bytes", "bytes", "Memory for descriptors and heaps.", _one("metadata_bytes")),
    _gauge("committed_bytes", "bytes", "Address space made readable and writable so far.", _one("committed_bytes")),
    _gauge("reserved_bytes", "bytes", "Address space reserved.", _one("reserved_bytes")),
    _gauge("locked_bytes", "bytes", "Free memory that the system did not take back (mlock).", _one("locked_bytes")),
    _gauge("tier_allocated_bytes", "bytes", "Live blocks by tier.", _tiers("{}_bytes"), ("tier",)),
    _gauge("tier_retained_bytes", "bytes", "Free memory in the caches.", _tiers("{}_retained_bytes"), ("tier",)),
    _gauge(
        "tier_pinned_bytes",
        "bytes",
        "Free blocks on resident pages that hold a live block, too.",
        _tiers("{}_pinned_bytes", tiers=TIERS[:2]),
        ("tier",),
    ),
    _gauge(
        "tier_taken_bytes_per_second",
        "bytes_per_second",
        "Memory taken by a pool from the page runs, smoothed by the keeper.",
        _tiers("{}_rate_bytes", 10),  # the keeper's tick is 100 ms
        ("tier",),
    ),
    _gauge(
        "pool_state",
        "",
        "1 for the state that a pool is in, 0 for the others: it follows the rate at which memory is taken.",
        lambda figures: [
            ((tier, state), int(figures[f"{tier}_state"] == number))
            for tier in TIERS
            for number, state in enumerate(POOL_STATES)
        ],
        ("tier", "state"),
    ),
    _counter("returned_bytes", "bytes", "Memory given back to the operating system.", _one("returned_bytes")),
    _counter(
        "regret_bytes", "bytes", "Memory that was given back and taken again by the next burst.", _one("refault_bytes")
    ),
    _counter("misses", "", "Times a thread's list of ready blocks was empty and was refilled.", _one("refill_count")),
    _counter(
        "allocations",
        "",
        "Allocations; only where libtidemalloc-count.so counts them.",
        lambda figures: [((), figures["allocation_count"])] if figures["allocation_count"] else [],
    ),
    _counter("spans_emptied", "", "Spans that became empty and left their heap.", _one("span_retire_count")),
    _counter("remote_frees", "", "Blocks freed by another thread than their own.", _one("remote_free_count")),
    _gauge("heaps", "", "Heaps ever made; later threads use them again.", _one("heap_count")),
    _gauge("threads", "", "Threads that have a heap now.", _one("thread_count")),
    _gauge(
        "keeper_state",
        "",
        "1 for what the keeper does now, 0 for the others: still means asleep until the program goes on.",
        lambda figures: [
            ((state,), int(figures["keeper_state"] == number)) for number, state in enumerate(KEEPER_STATES)
        ],
        ("state",),
    ),
    _counter("keeper_wakeups", "", "Times the keeper's thread woke up.", _one("keeper_wakeup_count")),
    _counter("keeper_cpu_seconds", "seconds", "Processor time of the keeper's thread.", _one("keeper_cpu_ns", 1e9)),
    _counter("flushes", "", "Quiet spells in which all free memory was given back.", _one("flush_count")),
    _counter("holds", "", "Quiet spells in which some was held for a burst that was expected.", _one("hold_count")),
    _counter("hold_hits", "", "Holds in which the burst came in time.", _one("hold_hit_count")),
    _counter("hold_misses", "", "Holds in which it did not.", _one("hold_miss_count")),
    _counter("trims", "", "Times unneeded memory went back while the program was busy.", _one("trim_count")),
    _counter("pressure_events", "", "Answers to memory pressure.", _one("pressure_count")),
    _gauge("patience_seconds", "seconds", "How long a quiet spell is waited out now.", _one("patience_ns", 1e9)),
    _gauge("claim_possible", "", "1 if the caches of sleeping threads can be emptied.", _one("claim_possible")),
    _counter("claim_rounds", "", "Rounds of marking all threads.", _one("claim_mark_count")),
    _counter("claim_wakes", "", "Threads that came back to their heap.", _one("claim_wake_count")),
    _counter("claim_waits", "", "Those of them that had to wait for it.", _one("claim_wait_count")),
    _gauge("claim_wait_max_seconds", "seconds", "The longest such wait.", _one("claim_wait_max_ns", 1e9)),
)

ANSWERED = _gauge(
    "keeper_answered", "", "1 if the process answered; 0 if it has no keeper, or does not answer.", _one("answered")
)


def library():
    """prometheus_client, or an error that says where to get it."""
    try:
        import prometheus_client.core

        return prometheus_client
    except ImportError:
        raise ProcessError(
            status.FAILED, "needs prometheus_client: apt install python3-prometheus-client"
        ) from None


def families(observations):
    """Metric families of prometheus_client for a list of (Process, Snapshot or None).

    A process that has ended meanwhile is left out.
    """
    core = library().core
    makers = {"gauge": core.GaugeMetricFamily, "counter": core.CounterMetricFamily}
    made = {
        family: makers[family.kind](family.name, family.help, labels=LABELS + family.labels, unit=family.unit)
        for family in (*OUTSIDE, ANSWERED, *INSIDE)
    }

    def add(chosen, labels, figures):
        for family in chosen:
            for more, value in family.values(figures):
                made[family].add_metric((*labels, *more), value)

    for process, snapshot in observations:
        try:
            memory = process.rollup()
        except ProcessError:
            continue
        labels = (process.name, str(process.pid))
        add(OUTSIDE, labels, memory)
        add((ANSWERED,), labels, {"answered": int(snapshot is not None)})
        if snapshot is not None:
            add(INSIDE, labels, snapshot.totals)
    return list(made.values())


class Collector:
    """What a registry of prometheus_client asks for metrics. `collect` returns families."""

    def __init__(self, collect):
        self.collect = collect


def registry_of(collect):
    registry = library().CollectorRegistry(auto_describe=False)
    registry.register(Collector(collect))
    return registry


def render(observations):
    """OpenMetrics text."""
    registry = registry_of(lambda: families(observations))
    from prometheus_client.openmetrics.exposition import generate_latest

    return generate_latest(registry).decode("utf-8")


def render_textfile(collect):
    """The older text, as bytes, which node exporter's textfile collector reads."""
    return library().generate_latest(registry_of(collect))
