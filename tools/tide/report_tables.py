"""What a report says: the tables that records of one or more runs amount to; the sentences are in
report_sentences.

The page and the text show the same: everything here is computed from all samples, before any are left out of a plot.
"""

from dataclasses import dataclass

from . import series

MIB = 1 << 20
MODES = ("static", "flush", "shrink", "adaptive", "hybrid")  # in the order of an ablation
TIERS = ("tiny", "mid", "large")
MOST_EVENT_ROWS = 60  # of a run, in the table

EVENT_WORDS = {
    "started": "keeper started",
    "flush": "idle, all given back",
    "hold": "idle, some held",
    "busy": "busy again",
    "trim": "trimmed while busy",
    "pressure": "memory pressure",
    "asked": "flush asked for",
    "mark": "mark",
    "interval": "interval changed",
    "lost": "events missed",
}


@dataclass(frozen=True)
class Figure:
    """A number in a table: as it is, and as it is shown."""

    value: float
    text: str


NOTHING = Figure(None, "–")


def mib(bytes_count):
    return NOTHING if bytes_count is None else Figure(bytes_count, f"{bytes_count / MIB:,.1f}".replace("-0.0", "0.0"))


def seconds(ms, digits=1):
    return NOTHING if ms is None else Figure(ms, f"{ms / 1000:,.{digits}f}")


def count(number):
    return NOTHING if number is None else Figure(number, f"{number:,}")


def in_mib(bytes_count):
    return f"{mib(bytes_count).text} MiB"


@dataclass
class Table:
    key: str
    caption: str
    columns: list
    rows: list  # of lists: the first cell names the row; a cell is a text or a Figure
    note: str = ""


# ------------------------------------------------------------------------------------------------------- tables


def levels(runs):
    rows = []
    for run in runs:
        s = run.summary
        rest = None if run.rest is None else run.rest - s.baseline
        rows.append(
            [run.label, mib(s.baseline), mib(s.peak), mib(run.rest), mib(rest), mib(s.after_flush), mib(int(s.mean)),
             seconds(s.cpu_ms, 2), seconds(run.series.duration_ms)]
        )  # fmt: skip
    return Table(
        "levels",
        "Resident memory",
        ["Run", "Baseline, MiB", "Peak, MiB", "Idle, MiB", "Idle over baseline, MiB", "After flush, MiB", "Mean, MiB",
         "Processor time, s", "Recorded, s"],
        rows,
        "Baseline: the last level before the growth. Idle: the level at the end of the last quiet spell after it. "
        "After flush: the lowest level between the last time that all was given back and the next work. "
        "Mean: over the whole record. A dash: the record has no such moment.",
    )  # fmt: skip


def with_stats(runs):
    return [run for run in runs if run.summary.at_idle]


def savings_by_tier(runs):
    """Free memory that the allocator itself keeps at rest: what could go back, and what cannot."""
    runs = with_stats(runs)
    if not runs:
        return None
    kinds = [
        ("tiny: empty spans", "tiny_retained_bytes"),
        ("mid: empty spans", "mid_retained_bytes"),
        ("large: free page runs, whatever they served", "large_retained_bytes"),
        ("tiny: pinned beside live blocks", "tiny_pinned_bytes"),
        ("mid: pinned beside live blocks", "mid_pinned_bytes"),
        ("locked by the program", "locked_bytes"),
        ("live: tiny", "tiny_bytes"),
        ("live: mid", "mid_bytes"),
        ("live: large", "large_bytes"),
        ("the allocator's own descriptors", "metadata_bytes"),
    ]
    rows = [[name, *(mib(run.summary.at_idle.get(key)) for run in runs)] for name, key in kinds]
    rows = [row for row in rows if any(cell is not NOTHING for cell in row[1:])]
    columns = ["At rest", *(f"{run.label}, MiB" for run in runs)]
    static, best = reference(runs, "static"), target(runs)
    if static in runs and best in runs and best is not static:
        columns.append("Saved, MiB")
        by_name = dict(kinds)
        for row in rows:
            difference = _difference(static, best, by_name[row[0]])
            row.append(mib(difference) if "retained" in by_name[row[0]] or "pinned" in by_name[row[0]] else NOTHING)
    note = (
        "The allocator's own count of free memory; what it kept may be resident or not. Pinned: free blocks whose "
        "pages hold a live block too; pages without one are given back."
    )
    if columns[-1] == "Saved, MiB":
        note += f" Saved: {static.label} less {best.label}."
    return Table("tiers", "Free memory that the allocator keeps at rest, by tier", columns, rows, note)


def _difference(before, after, key):
    first, second = before.summary.at_idle.get(key), after.summary.at_idle.get(key)
    return None if first is None or second is None else first - second


def ablation(runs):
    """The modes of tidemalloc side by side, when there are several."""
    of_mode = [run for mode in MODES for run in runs if run.allocator == "tidemalloc" and run.mode == mode]
    if len({run.mode for run in of_mode}) < 2:
        return None
    static = reference(runs, "static")
    rows = []
    for run in of_mode:
        last = series_end_stats(run)
        rest = run.rest
        saved = None if static is None or None in (static.rest, rest) else static.rest - rest
        rows.append(
            [run.label if sum(r.mode == run.mode for r in of_mode) > 1 else run.mode,
             mib(None if rest is None else rest - run.summary.baseline), mib(saved), mib(int(run.summary.mean)),
             mib(last.get("returned_bytes")), mib(last.get("refault_bytes")), seconds(run.summary.cpu_ms, 2),
             seconds(last["keeper_cpu_ns"] / 1e6, 3) if "keeper_cpu_ns" in last else NOTHING]
        )  # fmt: skip
    return Table(
        "ablation",
        "The modes side by side",
        ["Mode", "Idle over baseline, MiB", "Less than static, MiB", "Mean, MiB", "Given back in all, MiB",
         "Of that missed again, MiB", "Processor time, s", "Keeper's share, s"],
        rows,
        "static gives nothing back; flush all when idle; shrink in halves; adaptive follows the rate of use; hybrid "
        "also holds what a recurring burst will need.",
    )  # fmt: skip


def series_end_stats(run):
    for sample in reversed(run.series.samples):
        if sample.stats is not None:
            return sample.stats
    return {}


def phases(run):
    rows = [
        [phase.name, seconds(phase.from_ms), seconds(phase.to_ms), mib(phase.rss_from), mib(phase.rss_max),
         mib(phase.rss_to), mib(phase.live), mib(phase.retained)]
        for phase in run.summary.phases
    ]  # fmt: skip
    return Table(
        f"phases-{run.number}",
        f"Phases: {run.label}",
        ["Phase", "From, s", "To, s", "At its start, MiB", "Highest, MiB", "At its end, MiB", "Live at its end, MiB",
         "Kept free at its end, MiB"],
        rows,
        "" if run.summary.at_idle else "Live and kept free are known on tidemalloc only.",
    )  # fmt: skip


def event_counts(runs):
    kinds = [kind for kind in EVENT_WORDS if any(event["event"] == kind for run in runs for event in run.series.events)]
    runs = [run for run in runs if run.series.events]
    if not kinds:
        return None
    rows = []
    for run in runs:
        events = run.series.events
        given = sum(event.get("given", 0) for event in events if isinstance(event.get("given", 0), (int, float)))
        rows.append([run.label, *(count(sum(e["event"] == kind for e in events)) for kind in kinds), mib(given)])
    columns = ["Run", *(EVENT_WORDS[kind].capitalize() for kind in kinds), "Given back in them, MiB"]
    return Table("events", "What the keeper did, in numbers", columns, rows)


def event_list(runs):
    rows, left_out = [], 0
    for run in runs:
        events = run.series.events
        shown = events
        if len(events) > MOST_EVENT_ROWS:
            largest = sorted(range(len(events)), key=lambda i: (-importance(events[i]), i))[:MOST_EVENT_ROWS]
            shown = [events[i] for i in sorted(largest)]
            left_out += len(events) - len(shown)
        rows += [[seconds(event["t_ms"], 2), run.label, describe(event)] for event in shown]
    if not rows:
        return None
    rows.sort(key=lambda row: row[0].value)
    note = f"The {MOST_EVENT_ROWS} weightiest of each run; {left_out:,} more are in the records." if left_out else ""
    return Table("event-list", "Events", ["At, s", "Run", "What happened"], rows, note)


def importance(event):
    rank = {"pressure": 3, "asked": 3, "mark": 3, "interval": 3, "lost": 2, "hold": 1, "flush": 1}
    given = event.get("given", 0)
    return rank.get(event["event"], 0) * (1 << 60) + (given if isinstance(given, (int, float)) else 0)


def describe(event):
    """One event in words."""
    text = EVENT_WORDS.get(event["event"], series.printable(event["event"])[:40])
    parts = []

    def number(key):
        value = event.get(key)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    if number("given") is not None:
        parts.append(f"gave back {in_mib(number('given'))}")
    if number("kept") is not None:
        parts.append(f"kept {in_mib(number('kept'))}")
    if number("spare") is not None:
        parts.append(f"of {in_mib(number('spare'))} that nobody needed")
    if number("hold_ms") is not None:
        parts.append(f"held for {number('hold_ms'):.0f} ms")
    if number("quiet_ms") is not None:
        parts.append(f"after {number('quiet_ms'):.0f} ms of quiet")
    if number("interval_ms") is not None:
        parts.append(f"now {number('interval_ms'):g} ms")
    if number("count") is not None:
        parts.append(f"{number('count'):,}")
    if isinstance(event.get("text"), str):
        parts.append(series.printable(event["text"])[:120])
    return text + (": " + ", ".join(parts) if parts else "")


def target(runs):
    """The run that the others are compared with: tidemalloc's fullest mode."""
    own = [run for run in runs if run.allocator == "tidemalloc"]
    return max(own, key=lambda run: (MODES.index(run.mode) if run.mode in MODES else -1, -run.number), default=None)


def reference(runs, mode):
    return next((run for run in runs if run.allocator == "tidemalloc" and run.mode == mode), None)
