"""What the figures of an investigation mean: pure rules, without a clock, a file or a process.

The question is that of the project's first plan: does giving memory back free more than 1 MiB at rest, and does it cost
less than 5 %? Both are asked of the same program with `static`, which gives nothing back, and with `hybrid`. A figure
of a machine that does other things too is never a point, so both are intervals for the median, and a limit that lies
inside of one is not decided.

    holds        the whole interval is on the good side
    fails        the whole interval is on the bad side
    undecided    the limit lies inside of it, or there were fewer runs than an interval takes

The interval for a median of n values needs no assumption about their distribution: between the k-th smallest and the
k-th largest the true median lies with the probability 1 - 2 P(B < k), where B counts heads of n coins (the sign test).
"""

import math
import statistics
from dataclasses import dataclass, field

MIB = 1 << 20
LEAST_SAVED_BYTES = MIB
MOST_COST = 0.05
CONFIDENCE = 0.9
LEAST_RUNS = 3  # for a verdict about time; resident memory is counted exactly, one run shows it

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
GO, NO_GO, NOT_DECIDED = "go", "no-go", "not decided"


@dataclass(frozen=True)
class Interval:
    middle: float
    low: float
    high: float
    confidence: float  # that the true median lies between low and high
    runs: int


@dataclass(frozen=True)
class Run:
    """One run of the program in one configuration. Bytes and seconds."""

    baseline: int
    peak: int
    idle: int
    exit: int
    mean: float
    cpu_s: float
    wall_s: float
    faults: int
    at_rest: dict | None = None  # statistics of the allocator while the program rested
    at_peak: dict | None = None


@dataclass(frozen=True)
class Hits:
    """What the counting library saw in one tier."""

    allocations: int
    refills: int

    @property
    def rate(self):
        return 1 - self.refills / self.allocations if self.allocations else None


@dataclass(frozen=True)
class Criterion:
    name: str
    verdict: str
    text: str


@dataclass
class Advice:
    verdict: str  # GO, NO_GO or NOT_DECIDED
    headline: str
    criteria: list
    sentences: list = field(default_factory=list)
    saved: Interval | None = None
    cost_cpu: Interval | None = None
    cost_wall: Interval | None = None


# ------------------------------------------------------------------------------------------------------ arithmetic


def median_interval(values, confidence=CONFIDENCE):
    """The narrowest interval between order statistics that has the confidence, or the widest there is."""
    ordered = sorted(values)
    count = len(ordered)
    best = 1
    for k in range(1, (count + 1) // 2 + 1):
        if _covers(count, k) >= confidence:
            best = k
    covered = max(0.0, _covers(count, best))
    return Interval(statistics.median(ordered), ordered[best - 1], ordered[-best], covered, count)


def _covers(count, k):
    return 1 - 2 * sum(math.comb(count, i) for i in range(k)) / 2**count


def ratios(ours, theirs):
    """Ours to theirs, a round at a time, so that what slows a whole round down does not count. Less 1: the cost."""
    return [a / b - 1 for a, b in zip(ours, theirs) if b > 0]


def judge_saving(interval):
    if interval.low > LEAST_SAVED_BYTES:
        return HOLDS
    return FAILS if interval.high <= LEAST_SAVED_BYTES else UNDECIDED


def judge_cost(interval):
    if interval.runs < LEAST_RUNS:
        return UNDECIDED
    if interval.high < MOST_COST:
        return HOLDS
    return FAILS if interval.low >= MOST_COST else UNDECIDED


# ----------------------------------------------------------------------------------------------------------- words


def mib(count):
    return f"{count / MIB:.1f}"


def percent(share, sign=True):
    text = f"{100 * share:+.1f} %" if sign else f"{100 * share:.1f} %"
    return text.replace("-", "\N{MINUS SIGN}")


def _memory_text(interval):
    if interval.runs == 1:
        return f"{mib(interval.middle)} MiB (one run)"
    return f"{mib(interval.middle)} MiB ({mib(interval.low)} to {mib(interval.high)} in {interval.runs} runs)"


def _cost_text(interval, what):
    if interval.runs == 1:
        return f"{percent(interval.middle)} {what} (one run: no telling how much of it is noise)"
    return (
        f"{percent(interval.middle)} {what} ({percent(interval.low)} to {percent(interval.high)}, with "
        f"{100 * interval.confidence:.0f} % confidence)"
    )


# ---------------------------------------------------------------------------------------------------------- advice


def advise(runs, hits=None, load=False):
    """The Advice for `runs`: lists of Run by configuration, with one entry a round, among them static and hybrid.
    `hits`: Hits by tier. `load`: whether time is that of a load which somebody else ran against the program."""
    static, hybrid = runs["static"], runs["hybrid"]
    saved = median_interval([a.idle - b.idle for a, b in zip(static, hybrid)])
    cpu = _cost(hybrid, static, "cpu_s")
    wall = _cost(hybrid, static, "wall_s")

    less = f"at rest {_memory_text(saved)} less than static; asked for: more than 1 MiB"
    criteria = [Criterion("gives back", judge_saving(saved), less), _cost_criterion(cpu, wall, load)]
    verdicts = [criterion.verdict for criterion in criteria]
    if FAILS in verdicts:
        verdict = NO_GO
    else:
        verdict = GO if all(one == HOLDS for one in verdicts) else NOT_DECIDED
    found = Advice(verdict, _headline(verdict, criteria, saved), criteria, [], saved, cpu, wall)
    found.sentences = [
        *_share(static), *_waste(static), *_reallocation(static, hybrid), *_hit_rates(hits), *_peers(runs, hybrid)
    ]  # fmt: skip
    return found


def _cost(ours, theirs, name):
    found = ratios([getattr(run, name) for run in ours], [getattr(run, name) for run in theirs])
    return median_interval(found) if found else None


def _cost_criterion(cpu, wall, load):
    """Processor time decides, since other programs disturb it least; but who waits visibly longer pays, too."""
    if cpu is None:
        return Criterion("costs", UNDECIDED, "the program used no processor time that can be measured")
    text = _cost_text(cpu, "processor time")
    verdict = judge_cost(cpu)
    if wall is not None:
        text += f"; {_cost_text(wall, 'time of the load' if load else 'time from start to end')}"
        if judge_cost(wall) == FAILS:
            verdict = FAILS
    return Criterion("costs", verdict, f"{text}; asked for: less than 5 %")


def _headline(verdict, criteria, saved):
    if verdict == GO:
        return f"Go: run it with 'tide run', which gives {mib(saved.middle)} MiB back at rest."
    failed = [criterion.name for criterion in criteria if criterion.verdict == FAILS]
    if verdict == NO_GO:
        why = {
            "gives back": "at rest it would give back less than 1 MiB",
            "costs": "it would cost 5 % or more",
        }
        return f"No-go: {' and '.join(why[name] for name in failed)}."
    open_ones = {criterion.name for criterion in criteria if criterion.verdict == UNDECIDED}
    if open_ones == {"costs"}:
        return (
            f"Not decided: {mib(saved.middle)} MiB come back, but what it costs is lost in the noise of these runs; "
            "more runs (--runs) on a quieter machine would tell."
        )
    return "Not decided: the runs differ too much from each other; more of them (--runs) would tell."


def _share(static):
    """Programs with an allocator of their own leave little for another one to do."""
    known = [run for run in static if run.at_peak]
    if not known:
        return []
    held = statistics.median(run.at_peak["allocated_bytes"] + run.at_peak["retained_bytes"] for run in known)
    peak = statistics.median(run.peak for run in known)
    if held >= peak / 2:
        return []
    return [
        f"Of the {mib(peak)} MiB at its peak only {mib(held)} MiB came from malloc: the rest is the program's files, "
        "stacks and memory that it maps itself, which no malloc can give back."
    ]


def _waste(static):
    """What static holds at rest, by tier: an estimate of what there is to gain."""
    known = [run.at_rest for run in static if run.at_rest and "tiny_retained_bytes" in run.at_rest]
    if not known:
        return ["What static's caches hold is not known: it touched less than 2 MiB, or ended before it was asked."]
    tiers = {}
    for tier in ("tiny", "mid", "large"):
        tiers[tier] = statistics.median(rest[f"{tier}_retained_bytes"] for rest in known)
    total = sum(tiers.values())
    parts = ", ".join(f"{tier} {mib(held)}" for tier, held in tiers.items())
    return [
        f"Static's caches hold {mib(total)} MiB without a use at rest ({parts} MiB): so much could be given back at "
        "most."
    ]


def _reallocation(static, hybrid):
    """What is given back too early has to be fetched again."""
    more = statistics.median(run.faults for run in hybrid) - statistics.median(run.faults for run in static)
    sentence = f"Hybrid takes {abs(more):.0f} page faults {'more' if more >= 0 else 'fewer'} than static"
    known = [run.at_rest for run in hybrid if run.at_rest and "refault_bytes" in run.at_rest]
    if not known:
        return [f"{sentence}."]
    regret = statistics.median(rest["refault_bytes"] for rest in known)
    returned = statistics.median(rest["returned_bytes"] for rest in known)
    return [
        f"{sentence}: it gave {mib(returned)} MiB back in all, of which {mib(regret)} MiB were wanted again soon after."
    ]


def _hit_rates(hits):
    if not hits or not any(one.allocations for one in hits.values()):
        return []
    counted = {tier: one for tier, one in hits.items() if one.allocations}
    parts = [f"{tier} {percent(one.rate, sign=False)} of {one.allocations:,}" for tier, one in counted.items()]
    return [f"Allocations that found a block ready in their thread's cache: {'; '.join(parts)}."]


def _peers(runs, hybrid):
    ours = statistics.median(run.idle for run in hybrid)
    found = []
    for name, list_of_runs in runs.items():
        if name not in ("static", "hybrid"):
            theirs = statistics.median(run.idle for run in list_of_runs)
            less = f"{mib(abs(theirs - ours))} MiB {'less' if theirs >= ours else 'more'}"
            where = "On its own allocator" if name == "own" else f"On {name}"
            found.append(f"{where} it rests at {mib(theirs)} MiB; hybrid holds {less}.")
    return found
