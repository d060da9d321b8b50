"""The levels of memory in a record: baseline, peak, rest, and the phases between them.

Nothing but the samples is needed: the growth is where resident memory leaves its first level, and the process rests
where it neither works, by its processor time, nor grows.

    rss      ____peak____
            /            \\
           /              \\______________
    ______/                    idle
    baseline   work  quiet  work   idle
"""

import bisect
import math
import statistics
from dataclasses import dataclass, field

# A bin of time counts as work if the process used at least this share of one processor, or a tenth of what it used in
# its busy times, or grew; the rest is quiet. Shorter quiet spells than this are part of the work around them.
BIN_MS = 100.0
LEAST_WORK_SHARE = 0.03
BUSY_FRACTION = 0.1
QUIET_MS = 500.0
GROWTH_FRACTION = 0.1  # of the way from the lowest level to the peak: here the growth has begun for certain
NEAR_FRACTION = 0.02  # of that way: still at the level before it
LEAST_GROWTH = 1 << 20
MOST_PHASES = 12


@dataclass
class Phase:
    name: str
    from_ms: float
    to_ms: float
    rss_from: int
    rss_to: int
    rss_max: int
    live: int | None  # at its end, from the allocator's own statistics
    retained: int | None


@dataclass
class Summary:
    """Levels of resident memory, in bytes; None where the record holds no such moment."""

    baseline: int  # before the growth
    peak: int
    idle: int | None  # at the end of the last quiet spell after the growth
    after_flush: int | None  # after the last time that everything went back, or was asked to
    end: int  # the last sample
    mean: float  # over time
    peak_ms: float
    idle_from_ms: float | None
    idle_to_ms: float | None
    grew: bool  # more than LEAST_GROWTH
    cpu_ms: float | None
    at_idle: dict | None  # the allocator's statistics at that moment
    at_peak: dict | None
    phases: list = field(default_factory=list)


def summarize(series):
    samples = series.samples
    times = [sample.t_ms for sample in samples]
    rss = [sample.rss for sample in samples]
    top = max(range(len(rss)), key=rss.__getitem__)
    low = min(rss[: top + 1])
    grew = rss[top] - low > LEAST_GROWTH
    growth = _foot(times, rss, low, rss[top]) if grew else 0
    quiet = _quiet_spells(samples, growth) if grew else []
    baseline = _level_before(times, rss, growth) if grew else int(statistics.median(rss))

    summary = Summary(
        baseline=baseline, peak=rss[top], idle=None, after_flush=_after_flush(series, times, rss), end=rss[-1],
        mean=_mean(times, rss), peak_ms=times[top], idle_from_ms=None, idle_to_ms=None, grew=grew,
        cpu_ms=_cpu_used(samples), at_idle=None, at_peak=_stats_near(samples, top),
    )  # fmt: skip
    if quiet:
        first, last = quiet[-1]
        summary.idle = _last_level(times, rss, first, last)
        summary.idle_from_ms, summary.idle_to_ms = times[first], times[last]
        summary.at_idle = _stats_near(samples, last, first)
    elif not grew:
        summary.at_idle = _stats_near(samples, len(samples) - 1)
    summary.phases = _phases(samples, growth, quiet, grew)
    return summary


def _mean(times, values):
    """The mean over time; a level holds from its sample to the next."""
    if times[-1] <= times[0]:
        return float(values[0])
    area = sum(value * (after - before) for value, before, after in zip(values, times, times[1:]))
    return area / (times[-1] - times[0])


def _foot(times, rss, low, peak):
    """The position where the growth begins: the last one near the level before it."""
    level = low + (peak - low) * GROWTH_FRACTION
    start = next(i for i, value in enumerate(rss) if value < level)  # a record may begin at a height
    grown = next(i for i in range(start, len(rss)) if rss[i] >= level)
    near = _level_before(times, rss, grown) + max((peak - low) * NEAR_FRACTION, LEAST_GROWTH / 4)
    return next((i for i in range(grown - 1, -1, -1) if rss[i] <= near), 0)


def _level_before(times, rss, position):
    """The median of the last second up to and with `position`."""
    start = bisect.bisect_left(times, times[position] - 1000.0, 0, position)
    return int(statistics.median(rss[start : position + 1]))


def _last_level(times, rss, first, last):
    """The median of the last half of a quiet spell, at most of its last second."""
    since = max(times[last] - 1000.0, (times[first] + times[last]) / 2)
    start = bisect.bisect_left(times, since, first, last)
    return int(statistics.median(rss[start : last + 1]))


def _after_flush(series, times, rss):
    """The lowest level between the last flush that has samples behind it and whatever the program did next."""
    # The kernel takes the memory of a process that ends away before its last sample.
    usable = len(rss) - 1 if series.end and "detached" not in series.end and len(rss) > 1 else len(rss)
    for position in range(len(series.events) - 1, -1, -1):
        if series.events[position]["event"] not in ("flush", "asked"):
            continue
        later = (event["t_ms"] for event in series.events[position + 1 :] if event["event"] == "busy")
        start = bisect.bisect_left(times, series.events[position]["t_ms"])
        stop = min(max(bisect.bisect_left(times, next(later, math.inf)), start + 1), usable)
        if start < stop:
            return min(rss[start:stop])
    return None


def _cpu_used(samples):
    known = [sample.cpu_ms for sample in samples if sample.cpu_ms is not None]
    return known[-1] - known[0] if len(known) > 1 else None


def _stats_near(samples, position, first=0):
    """The statistics of the last sample up to `position` that has any."""
    for i in range(position, first - 1, -1):
        if samples[i].stats is not None:
            return samples[i].stats
    return None


def _quiet_spells(samples, growth):
    """Pairs of positions (first, last) of the samples in which nothing was done, after the growth has begun."""
    active = _active_steps(samples)
    spells, start = [], None
    for i in range(growth, len(samples)):
        if i + 1 < len(samples) and not active[i + 1]:
            start = i if start is None else start
        elif start is not None:
            # A last sample may show a process on its way out.
            last = i - 1 if i == len(samples) - 1 and i - 1 > start else i
            if samples[last].t_ms - samples[start].t_ms >= QUIET_MS:
                spells.append((start, last))
            start = None
    return spells


def _active_steps(samples):
    """For each sample, whether the process has worked since the one before it."""
    rates, growths = [0.0], [0]
    back = 0
    for i in range(1, len(samples)):
        while back + 1 < i and samples[i].t_ms - samples[back + 1].t_ms >= BIN_MS:
            back += 1
        elapsed = samples[i].t_ms - samples[back].t_ms
        known = samples[i].cpu_ms is not None and samples[back].cpu_ms is not None and elapsed > 0
        rates.append((samples[i].cpu_ms - samples[back].cpu_ms) / elapsed if known else 0.0)
        growths.append(samples[i].rss - samples[back].rss)
    busy = sorted(rates)[int(len(rates) * 0.95)]
    enough = max(LEAST_WORK_SHARE, BUSY_FRACTION * busy)
    peak = max(sample.rss for sample in samples)
    much = max(LEAST_GROWTH // 4, peak // 100)
    return [rate >= enough or growth >= much for rate, growth in zip(rates, growths)]


def _phases(samples, growth, quiet, grew):
    """baseline, then work and quiet in turn; the last quiet spell is called idle."""
    last = len(samples) - 1
    if not grew:
        return [_phase("steady", samples, 0, last)]
    phases = [_phase("baseline", samples, 0, growth)] if growth > 0 else []
    shown = quiet if 2 * len(quiet) + 2 <= MOST_PHASES else quiet[-1:]
    work = 0
    at = growth
    for number, (start, stop) in enumerate(shown, 1):
        if start > at:
            work += 1
            phases.append(_phase(f"work {work}", samples, at, start))
        name = "idle" if number == len(shown) else f"quiet {number}"
        phases.append(_phase(name, samples, start, stop))
        at = stop
    if last - at > 1 or not shown:
        phases.append(_phase(f"work {work + 1}", samples, at, last))
    if work == 1 and len(shown) < len(quiet):
        phases[-1 if not shown else next(i for i, p in enumerate(phases) if p.name == "work 1")].name = (
            f"work, with {len(quiet) - 1} quiet spells"
        )
    return phases


def _phase(name, samples, first, last):
    stats = _stats_near(samples, last, first) or {}
    part = samples[first : last + 1]
    return Phase(
        name, samples[first].t_ms, samples[last].t_ms, samples[first].rss, samples[last].rss,
        max(sample.rss for sample in part), stats.get("allocated_bytes"), stats.get("retained_bytes"),
    )  # fmt: skip
