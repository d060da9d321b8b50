"""What the runs say about the promises P2 to P5 and about the criteria that the project began with. Pure functions.

For memory the worst of all runs counts, for time the median. A run that failed breaks the promise it was to show.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from battle.configurations import MODES
from battle.runner import Runs
from battle.scenarios import P4_GAPS_MS, TIERS, Scenario

OURS, CONTROL, GLIBC = "hybrid", "static", "glibc"
P2_AT_MS, P2_MIB = 200, 1.0
P3_AT_MS, P3_FACTOR, P3_MIB = 500, 1.10, 1.0
P4_FROM_CYCLE, P4_RATIO = 5, 1.10
HOLD_GAPS, HOLD_MAX_MS = 1.25, 1250  # how long a learned recurrence may hold
SMALL_KIB, SMALL_METADATA_KIB = 512, 64  # empty spans a small program may keep, and the bookkeeping for them
SEED_GAIN_MIB, SEED_COST = 1.0, 1.05


@dataclass(frozen=True)
class Verdict:
    promise: str
    held: bool | None  # None: not measured
    detail: str

    def line(self) -> str:
        word = {True: "held", False: "not held", None: "not measured"}[self.held]
        return f"{self.promise} {word}: {self.detail}"


def over_mib(run: dict, sample: dict, what: str = "rss_kib") -> float:
    """Memory of a sample above the baseline."""
    return (sample[what] - run["baseline"][what]) / 1024


def at(run: dict, at_ms: int) -> dict | None:
    return next((s for s in run["samples"] if s["at_ms"] == at_ms), None)


def since(run: dict, at_ms: float) -> list[dict]:
    return [s for s in run["samples"] if s["at_ms"] >= at_ms]


def cycle_median(runs: Iterable[dict | None], key: str) -> float | None:
    """Over the cycles that come after the learning, of all runs together."""
    values = [c[key] for run in runs if run for c in run["cycles"][P4_FROM_CYCLE - 1:]]
    return statistics.median(values) if values else None


def cycle_ratio(runs: list[dict | None], against: list[dict | None], key: str) -> float | None:
    """The ratio of the medians of two runs of the same round, whose bursts took turns; of these the median."""
    ratios = [cycle_median([a], key) / cycle_median([b], key) for a, b in zip(runs, against) if a and b]
    return statistics.median(ratios) if ratios else None


def ratio_of_rounds(runs: list[dict | None], against: list[dict | None], part: str, key: str) -> float | None:
    """The median of the ratios of runs of the same round, which were close in time."""
    ratios = [a[part][key] / b[part][key] for a, b in zip(runs, against)
              if a and b and a.get(part) and b.get(part) and b[part][key] > 0]
    return statistics.median(ratios) if ratios else None


def of_ours(runs: Runs, scenarios: list[Scenario], wanted: Callable[[Scenario], bool]) -> list[tuple[Scenario, list]]:
    return [(s, runs[s.name][OURS]) for s in scenarios if wanted(s) and OURS in runs.get(s.name, {})]


def judge(promise: str, found: list[tuple[Scenario, list]], measure: Callable[[Scenario, dict], list],
          show: Callable[[tuple], str]) -> Verdict:
    """`measure` gives entries (share of the limit, what `show` needs...) of one run; the largest share is the worst."""
    entries, failed = [], []
    for scenario, runs in found:
        for run in runs:
            if run is None:
                failed.append(scenario.name)
            else:
                entries += [((*entry, scenario.name), run) for entry in measure(scenario, run)]
    if failed:
        return Verdict(promise, False, "failed: " + ", ".join(sorted(set(failed))))
    if not entries:
        return Verdict(promise, None, "no run of it")
    worst, run = max(entries, key=lambda entry: entry[0][0])
    return Verdict(promise, worst[0] <= 1, show(worst) + ("" if worst[0] <= 1 else excuse([run])))


def excuse(runs: Iterable[dict]) -> str:
    return " [other work took the cores meanwhile]" if any(run.get("disturbed") for run in runs) else ""


def p2(runs: Runs, scenarios: list[Scenario]) -> Verdict:
    def measure(scenario: Scenario, run: dict) -> list:
        return [(over_mib(run, s) / P2_MIB, over_mib(run, s), s["at_ms"]) for s in since(run, P2_AT_MS)]

    return judge("P2 ebbs", of_ours(runs, scenarios, lambda s: s.promise == "P2"), measure,
                 lambda e: f"worst {e[1]:.2f} MiB over the baseline, {e[3]} at {e[2]} ms (goal {P2_MIB:.0f} MiB "
                           f"from {P2_AT_MS} ms on)")


def p2_recurring(runs: Runs, scenarios: list[Scenario]) -> Verdict:
    """After the last of several bursts a learned recurrence may hold, once and for a while."""
    def measure(scenario: Scenario, run: dict) -> list:
        hold_ms = min(HOLD_GAPS * scenario.gap_ms, HOLD_MAX_MS)
        return [(over_mib(run, s) / P2_MIB, over_mib(run, s), s["at_ms"]) for s in since(run, hold_ms + P2_AT_MS)]

    return judge("P2 ebbs after recurring bursts", of_ours(runs, scenarios, lambda s: s.kind == "recur"), measure,
                 lambda e: f"worst {e[1]:.2f} MiB over the baseline, {e[3]} at {e[2]} ms (goal {P2_MIB:.0f} MiB from "
                           f"{P2_AT_MS} ms after the hold, at most {HOLD_GAPS} gaps)")


def p3_limit_mib(run: dict) -> float:
    return P3_FACTOR * run["live_page_kib"] / 1024 + P3_MIB


def p3(runs: Runs, scenarios: list[Scenario]) -> Verdict:
    def measure(scenario: Scenario, run: dict) -> list:
        limit = p3_limit_mib(run)
        return [(over_mib(run, s) / limit, over_mib(run, s), limit, s["at_ms"]) for s in since(run, P3_AT_MS)]

    return judge("P3 ebbs around survivors", of_ours(runs, scenarios, lambda s: s.promise == "P3"), measure,
                 lambda e: f"worst {e[1]:.1f} MiB over the baseline, {e[4]} at {e[3]} ms (limit {e[2]:.1f}: "
                           f"{P3_FACTOR:.2f} x its pages with a live byte + {P3_MIB:.0f} MiB)")


def p4(runs: Runs, scenarios: list[Scenario]) -> Verdict:
    promise, entries = "P4 flows back cheaply", []
    for scenario in scenarios:
        row = runs.get(scenario.name, {})
        if scenario.kind != "recur" or not P4_GAPS_MS[0] <= scenario.gap_ms <= P4_GAPS_MS[1]:
            continue
        if OURS not in row or CONTROL not in row:
            continue
        if None in row[OURS] or None in row[CONTROL]:
            return Verdict(promise, False, f"failed: {scenario.name}")
        for key, name in (("wall_ns", "wall time"), ("whole_cpu_ns", "CPU time")):
            ratio = cycle_ratio(row[OURS], row[CONTROL], key)
            if ratio:
                medians = [cycle_median(row[one], key) / 1e6 for one in (OURS, CONTROL)]
                entries.append((ratio, name, scenario.name, *medians))
    if not entries:
        return Verdict(promise, None, f"needs {OURS} and {CONTROL} on recurring bursts")
    worst = max(entries)
    return Verdict(promise, worst[0] <= P4_RATIO,
                   f"worst {worst[0]:.2f} of {CONTROL} in {worst[1]}, {worst[2]} ({worst[3]:.1f} against "
                   f"{worst[4]:.1f} ms a burst from cycle {P4_FROM_CYCLE} on; goal {P4_RATIO:.2f})"
                   + ("" if worst[0] <= P4_RATIO else excuse(runs[worst[2]][OURS] + runs[worst[2]][CONTROL])))


def who_ran(quiet: dict) -> str:
    names = sorted({t["name"] for t in quiet["foreign"] if t["switches"] or t["cpu_ns"]})
    return ", ".join(names) or ("the program's own sleepers" if quiet["sleeper_switches"] else "a thread that ended")


def p5_quiet(runs: Runs, scenarios: list[Scenario]) -> Verdict:
    def measure(scenario: Scenario, run: dict) -> list:
        quiet = run.get("quiet")
        if not quiet:
            return []
        switches, cpu_us = quiet["switches"], quiet["foreign_cpu_ns"] / 1000
        broken = 1 + switches + cpu_us if switches or cpu_us else 0  # nothing at all is the limit
        return [(broken, switches, cpu_us, quiet["from_ms"], who_ran(quiet))]

    def show(worst: tuple) -> str:
        if worst[0] == 0:
            return f"no wake-up and no CPU time of any other thread in {silences} silences"
        return (f"worst {worst[1]} wake-ups and {worst[2]:.0f} us of CPU from {worst[3]} ms on, {worst[5]} "
                f"({worst[4]}; goal 0 and 0)")

    found = of_ours(runs, scenarios, lambda s: s.promise != "" or s.kind == "recur")
    silences = sum(1 for _, rows in found for run in rows if run and run.get("quiet"))
    return judge("P5 still water", found, measure, show)


def p5_small(runs: Runs, scenarios: list[Scenario]) -> Verdict:
    limit_kib = SMALL_KIB + SMALL_METADATA_KIB

    def measure(scenario: Scenario, run: dict) -> list:
        threads = max(s["threads"] for s in run["samples"])
        others = max(s["others_switches"] for s in run["samples"])  # counts threads that have ended, too
        kept_kib = 1024 * over_mib(run, run["samples"][-1], "private_dirty_kib")
        alone = threads == 1 and others == 0
        return [(kept_kib / limit_kib if alone else 1000 + threads, threads, kept_kib)]

    return judge("P5 a small program stays alone", of_ours(runs, scenarios, lambda s: s.promise == "P5"), measure,
                 lambda e: f"{e[1]} thread{'s' if e[1] > 1 else ''}, {e[2]:.0f} KiB kept, {e[3]} (goal 1 thread, "
                           f"{SMALL_KIB} KiB + {SMALL_METADATA_KIB} of bookkeeping)")


def verdicts(runs: Runs, scenarios: list[Scenario]) -> list[Verdict]:
    return [rule(runs, scenarios) for rule in (p2, p2_recurring, p3, p4, p5_quiet, p5_small)]


@dataclass(frozen=True)
class SeedRow:
    """One mode on one tier by the project's first criteria: gives back more than 1 MB, costs less than 5 %."""

    mode: str
    tier: str
    given_mib: float | None
    burst_ratio: float | None
    load_ratio: float | None

    @property
    def gives(self) -> bool | None:
        return None if self.given_mib is None else self.given_mib > SEED_GAIN_MIB

    @property
    def cheap(self) -> bool | None:
        if self.burst_ratio is None or self.load_ratio is None:
            return None
        return max(self.burst_ratio, self.load_ratio) < SEED_COST

    @property
    def go(self) -> bool | None:
        return None if self.gives is None or self.cheap is None else self.gives and self.cheap

    def as_dict(self) -> dict:
        return asdict(self) | {"gives": self.gives, "cheap": self.cheap, "go": self.go}


def given_mib(ours: list[dict | None], control: list[dict | None]) -> float | None:
    """What the control still holds at the last sample and the mode does not; the worst pair of runs counts."""
    kept = [over_mib(run, run["samples"][-1]) for run in ours if run]
    held = [over_mib(run, run["samples"][-1]) for run in control if run]
    return min(held) - max(kept) if kept and held else None


def seed_rows(runs: Runs, metric: str) -> list[SeedRow]:
    rows, key = [], f"{metric}_ns"
    steady = runs.get("steady-heavy", {})
    for mode in MODES:
        for tier in TIERS:
            row, cost = runs.get(f"burst-{tier}", {}), runs.get(f"cost-{tier}", {})
            if mode == CONTROL or mode not in row or CONTROL not in row:
                continue
            rows.append(SeedRow(mode, tier, given_mib(row[mode], row[CONTROL]),
                                ratio_of_rounds(row[mode] + cost.get(mode, []), row[CONTROL] + cost.get(CONTROL, []),
                                                "burst", key),
                                ratio_of_rounds(steady.get(mode, []), steady.get(CONTROL, []), "load", key)))
    return rows
