"""The tables, and the files that hold the same numbers."""

import csv
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import report
from battle.runner import Runs
from battle.scenarios import Scenario
from battle.verdicts import (CONTROL, GLIBC, OURS, P3_AT_MS, P4_FROM_CYCLE, SeedRow, Verdict, at, cycle_median,
                             cycle_ratio, over_mib, ratio_of_rounds)

NONE = "-"


def cell(number: float | None, form: str = ".2f") -> str:
    return NONE if number is None else format(number, form)


def mib(number: float | None) -> str:
    return NONE if number is None else f"{number:.1f}" if abs(number) >= 9.95 else f"{number:.2f}"


def time_name(ms: int) -> str:
    return f"{ms // 1000} s" if ms >= 1000 and ms % 1000 == 0 else f"{ms / 1000:g} s" if ms >= 1000 else f"{ms} ms"


def good(runs: list[dict | None]) -> list[dict]:
    return [run for run in runs if run]


def worst_mib(runs: list[dict | None], at_ms: int) -> float | None:
    return max((over_mib(run, s) for run in good(runs) if (s := at(run, at_ms))), default=None)


def median_of(runs: list[dict | None], value: Callable[[dict], float | None]) -> float | None:
    values = [v for run in good(runs) if (v := value(run)) is not None]
    return statistics.median(values) if values else None


def stat_mib(runs: list[dict | None], name: str) -> float | None:
    return median_of(runs, lambda run: run.get("stats", {}).get(name, -1) / 2**20
                     if name in run.get("stats", {}) else None)


def idle_cpu_ms(run: dict) -> float | None:
    """CPU time of all but the thread that watches, from 500 ms after the last free to the end."""
    start, end = at(run, P3_AT_MS), run["samples"][-1]
    if not start or end is start:
        return None
    return max(0, end["others_cpu_ns"] - start["others_cpu_ns"]) / 1e6


def quiet_switches(run: dict) -> int | None:
    return run["quiet"]["switches"] if run.get("quiet") else None


Table = tuple[list[str], list[list[str]]]


def silence_table(runs: Runs, scenarios: list[Scenario], metric: str) -> Table:
    shown = [s for s in scenarios if s.kind in ("idle", "real") and s.name in runs]
    times = sorted({s["at_ms"] for scenario in shown for row in runs[scenario.name].values()
                    for run in good(row) for s in run["samples"]})
    key = f"{metric}_ns"
    head = ["scenario", "configuration", *map(time_name, times), "live", f"burst {metric} ms", f"/{GLIBC}",
            f"/{CONTROL}", "idle cpu ms", "wake-ups", "returned", "regret"]
    rows = []
    for scenario in shown:
        row = runs[scenario.name]
        for name, found in row.items():
            live = median_of(found, lambda run: run["live_page_kib"] / 1024 or None)
            rows.append([scenario.name, name, *(mib(worst_mib(found, t)) for t in times), mib(live),
                         cell(median_of(found, lambda run: run["burst"][key] / 1e6), ".1f"),
                         cell(ratio_of_rounds(found, row.get(GLIBC, []), "burst", key)),
                         cell(ratio_of_rounds(found, row.get(CONTROL, []), "burst", key)),
                         cell(median_of(found, idle_cpu_ms)), cell(median_of(found, quiet_switches), ".0f"),
                         mib(stat_mib(found, "returned_bytes")), mib(stat_mib(found, "refault_bytes"))])
    return head, rows


def recur_table(runs: Runs, scenarios: list[Scenario]) -> Table:
    shown = [s for s in scenarios if s.kind == "recur" and s.name in runs]
    times = sorted({s["at_ms"] for scenario in shown for row in runs[scenario.name].values()
                    for run in good(row) for s in run["samples"]})
    head = ["gap", "configuration", "first ms", f"from {P4_FROM_CYCLE} ms", "cpu ms", f"/{CONTROL}",
            f"cpu /{CONTROL}", f"/{GLIBC}", *map(time_name, times), "returned", "regret", "holds hit", "missed"]
    rows = []
    for scenario in shown:
        row = runs[scenario.name]
        for name, found in row.items():
            wall, cpu = cycle_median(found, "wall_ns"), cycle_median(found, "whole_cpu_ns")
            rows.append([time_name(scenario.gap_ms), name,
                         cell(median_of(found, lambda run: run["cycles"][0]["wall_ns"] / 1e6), ".1f"),
                         cell(wall / 1e6 if wall else None, ".1f"), cell(cpu / 1e6 if cpu else None, ".1f"),
                         cell(cycle_ratio(found, row.get(CONTROL, []), "wall_ns")),
                         cell(cycle_ratio(found, row.get(CONTROL, []), "whole_cpu_ns")),
                         cell(cycle_ratio(found, row.get(GLIBC, []), "wall_ns")),
                         *(mib(worst_mib(found, t)) for t in times),
                         mib(stat_mib(found, "returned_bytes")), mib(stat_mib(found, "refault_bytes")),
                         cell(median_of(found, lambda run: run.get("stats", {}).get("hold_hit_count")), ".0f"),
                         cell(median_of(found, lambda run: run.get("stats", {}).get("hold_miss_count")), ".0f")])
    return head, rows


def foreign(run: dict, key: str) -> float:
    return sum(t[key] for t in run["quiet"]["foreign"])


def load_table(runs: Runs, scenarios: list[Scenario]) -> Table:
    head = ["load", "configuration", "million pairs/s", "cpu ns/pair", f"time /{CONTROL}", f"cpu /{CONTROL}",
            "others' cpu ms/s", "others' wake-ups/s", "MiB held"]
    rows = []
    for scenario in scenarios:
        row = runs.get(scenario.name, {}) if scenario.kind == "load" else {}
        for name, found in row.items():
            rows.append([
                scenario.name, name,
                cell(median_of(found, lambda run: run["load"]["operations"] * 1e3 / run["load"]["wall_ns"])),
                cell(median_of(found, lambda run: run["load"]["cpu_ns"] / run["load"]["operations"]), ".1f"),
                cell(ratio_of_rounds(found, row.get(CONTROL, []), "load", "wall_ns")),
                cell(ratio_of_rounds(found, row.get(CONTROL, []), "load", "cpu_ns")),
                cell(median_of(found, lambda run: foreign(run, "cpu_ns") * 1e3 / run["load"]["wall_ns"])),
                cell(median_of(found, lambda run: foreign(run, "switches") * 1e9 / run["load"]["wall_ns"]), ".1f"),
                mib(worst_mib(found, 0))])
    return head, rows


def seed_table(found: list[SeedRow]) -> Table:
    def word(value: bool | None, yes: str = "yes", no: str = "no") -> str:
        return NONE if value is None else yes if value else no

    head = ["mode", "tier", "MiB given back", "> 1 MB", f"burst /{CONTROL}", f"steady /{CONTROL}", "costs < 5 %",
            "verdict"]
    return head, [[row.mode, row.tier, mib(row.given_mib), word(row.gives), cell(row.burst_ratio, ".3f"),
                   cell(row.load_ratio, ".3f"), word(row.cheap), word(row.go, "go", "no-go")] for row in found]


def padded(table: Table) -> str:
    """A Markdown table that reads well in a terminal too; the first two columns hold names."""
    head, rows = table
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.ljust(w) if i < 2 else c.rjust(w)
                                 for i, (c, w) in enumerate(zip(cells, widths))) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i < 2 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def sections(runs: Runs, scenarios: list[Scenario], seed: list[SeedRow], metric: str) -> list[tuple[str, str]]:
    """(what it shows, table), without those that would be empty."""
    found = [
        ("MiB over the baseline after the last free (worst of the runs), `live`: MiB of pages with a live byte",
         silence_table(runs, scenarios, metric)),
        (f"Recurring bursts of 64 MiB: the first, the median from cycle {P4_FROM_CYCLE} on (cpu: with the gap after), "
         "then MiB over the baseline after the last one",
         recur_table(runs, scenarios)),
        ("Steady load", load_table(runs, scenarios)),
        (f"The criteria that the project began with, against {CONTROL}", seed_table(seed)),
    ]
    return [(title, padded(table)) for title, table in found if table[1]]


def verdict_lines(verdicts: list[Verdict], failures: list[str]) -> list[str]:
    return [v.line() for v in verdicts] + [f"FAILED {failure}" for failure in failures]


COLUMNS = ("at_ms", "at_us", "rss_kib", "private_dirty_kib", "anon_huge_kib", "lazy_free_kib", "others_cpu_ns",
           "others_switches", "threads", "wall_ns", "cpu_ns", "whole_cpu_ns", "operations", "live_page_kib")


def events(run: dict) -> list[tuple[str, dict]]:
    """A run as rows of the CSV file."""
    found = [("baseline", run["baseline"]), ("burst", run["burst"] | {"live_page_kib": run["live_page_kib"]})]
    if run.get("load"):
        found.append(("load", run["load"]))
    found += [("cycle", cycle | {"at_ms": number}) for number, cycle in enumerate(run["cycles"], 1)]
    return found + [("sample", sample) for sample in run["samples"]]


def write_csv(path: Path, runs: Runs) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "configuration", "round", "event", *COLUMNS])
        for scenario, row in runs.items():
            for configuration, found in row.items():
                for number, run in enumerate(found, 1):
                    for event, values in events(run) if run else [("failed", {})]:
                        writer.writerow([scenario, configuration, number, event,
                                         *(values.get(column, "") for column in COLUMNS)])


def write_json(path: Path, facts: dict, runs: Runs, verdicts: list[Verdict], seed: list[SeedRow],
               failures: list[str]) -> None:
    document = {"environment": facts, "ours": OURS, "control": CONTROL,
                "verdicts": [{"promise": v.promise, "held": v.held, "detail": v.detail} for v in verdicts],
                "seed": [row.as_dict() for row in seed], "failures": failures, "runs": runs}
    path.write_text(json.dumps(document, indent=1) + "\n")


def write_markdown(path: Path, facts: dict, found: list[tuple[str, str]], lines: list[str]) -> None:
    """Between the markers of a page that has them; else the page is made."""
    versions = "; ".join(f"{name}: {version}" for name, version in facts["configurations"].items())
    text = [f"Measured {facts['date']}: {facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, "
            f"{facts['rounds']} rounds. {versions}.", ""]
    text += [f"* {line}" for line in lines]
    for title, table in found:
        text += ["", f"**{title}**", "", table]
    if not path.exists():
        path.write_text("# The battle test\n\n" + "\n".join(report.MARKERS) + "\n")
    report.insert_between_markers(path, "\n".join(text))
