"""From samples to ratios, the table, the verdicts about time and peak, and the files."""

import csv
import json
import statistics
from dataclasses import asdict
from pathlib import Path

from allocators import PEERS
from measure import Sample

BASE = "glibc"
OURS = "tide"
TIME_GOAL, TIME_LIMIT_EACH, PEAK_GOAL = 0.95, 1.10, 1.00
MARKERS = ("<!-- table:begin -->", "<!-- table:end -->")

# samples[benchmark][allocator] is the list of that pair's samples, one a round; None for a round that failed.
Samples = dict[str, dict[str, list[Sample | None]]]


def value(sample: Sample, metric: str) -> float:
    return {"wall": sample.wall_s, "cpu": sample.cpu_s, "peak": sample.peak_kib}[metric]


def median(samples: list[Sample | None], metric: str) -> float | None:
    values = [value(s, metric) for s in samples if s]
    return statistics.median(values) if values else None


def ratio(samples: list[Sample | None], against: list[Sample | None], metric: str) -> float | None:
    """The median of the ratios of runs of the same round, which were close in time."""
    pairs = [value(a, metric) / value(b, metric) for a, b in zip(samples, against) if a and b and value(b, metric) > 0]
    return statistics.median(pairs) if pairs else None


class Results:
    """Ratios against glibc (or, without it, against the first allocator) and what follows from them."""

    def __init__(self, samples: Samples, allocators: list[str], metric: str):
        self.samples, self.allocators, self.metric = samples, allocators, metric
        self.base = BASE if BASE in allocators else allocators[0]
        self.peers = [name for name in PEERS if name in allocators]

    def ratio(self, benchmark: str, allocator: str, metric: str) -> float | None:
        row = self.samples[benchmark]
        return ratio(row[allocator], row[self.base], metric)

    def geomean(self, allocator: str, metric: str) -> float | None:
        """Over the benchmarks that every allocator completed, so that all means are over the same set."""
        rows = [b for b in self.samples if all(self.ratio(b, a, metric) for a in self.allocators)]
        ratios = [self.ratio(b, allocator, metric) for b in rows]
        return statistics.geometric_mean(ratios) if ratios else None

    def to_best_peer(self, benchmark: str) -> tuple[float, str] | None:
        """Our time against the fastest peer's on this benchmark, and its name."""
        row = self.samples[benchmark]
        against = [(r, p) for p in self.peers if (r := ratio(row[OURS], row[p], self.metric))]
        return max(against) if against else None

    def has_verdicts(self) -> bool:
        return OURS in self.allocators and BASE in self.allocators and bool(self.peers)

    def verdicts(self) -> list[dict]:
        """P1 and P7 of the design, each with the number that decides it."""
        if not self.has_verdicts():
            return []
        ours = self.geomean(OURS, self.metric)
        peers = {name: mean for name in self.peers if (mean := self.geomean(name, self.metric))}
        peak = self.geomean(OURS, "peak")
        if ours is None or not peers or peak is None:
            return [verdict("P1", False, "no benchmark was completed by every allocator")]
        best = min(peers, key=peers.get)
        slow = [(b, *found) for b in self.samples if (found := self.to_best_peer(b)) and found[0] > TIME_LIMIT_EACH]
        slow.sort(key=lambda entry: -entry[1])
        names = ", ".join(f"{b} {r:.2f} ({p})" for b, r, p in slow) or "none"
        missing = "" if len(peers) == len(PEERS) else f" [only against {', '.join(peers)}]"
        broken = [b for b in self.samples if not self.ratio(b, OURS, self.metric)]
        return [
            verdict("P1 mean time", ours <= TIME_GOAL * peers[best] and not broken,
                    f"{ours / peers[best]:.3f} of {best}, the fastest peer (goal {TIME_GOAL}){missing}"),
            verdict("P1 each benchmark", not slow and not broken,
                    f"above {TIME_LIMIT_EACH:.2f} of the best peer: {names}"
                    + (f"; failed: {', '.join(broken)}" if broken else "")),
            verdict("P7 mean peak RSS", peak <= PEAK_GOAL, f"{peak:.3f} of glibc's (goal {PEAK_GOAL:.2f})"),
        ]


def verdict(promise: str, holds: bool, detail: str) -> dict:
    return {"promise": promise, "holds": holds, "detail": detail}


def verdict_line(one: dict) -> str:
    return f"{one['promise']} {'holds' if one['holds'] else 'does not hold'}: {one['detail']}"


def cell(number: float | None, form: str = ".2f") -> str:
    return "FAILED" if number is None else format(number, form)


def table_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    others = [name for name in results.allocators if name != results.base]
    ours = OURS in results.allocators and results.peers
    head = ["benchmark", f"{results.base} s", *others, *(["tide/best"] if ours else []), f"{results.base} MiB",
            *(f"{name} RSS" for name in others)]
    rows = []
    for name, row in results.samples.items():
        line = [name, cell(median(row[results.base], results.metric), ".3f")]
        line += [cell(results.ratio(name, other, results.metric)) for other in others]
        if ours:
            best = results.to_best_peer(name)
            line.append(cell(best[0] if best else None))
        peak_kib = median(row[results.base], "peak")
        line.append(cell(peak_kib / 1024 if peak_kib else None, ".1f"))
        rows.append(line + [cell(results.ratio(name, other, "peak")) for other in others])
    means = ["**geometric mean**", "1.00"] + [cell(results.geomean(other, results.metric)) for other in others]
    if ours:
        best = min((m for p in results.peers if (m := results.geomean(p, results.metric))), default=None)
        mean = results.geomean(OURS, results.metric)
        means.append(cell(mean / best if mean and best else None))
    return head, rows + [means + ["1.00"] + [cell(results.geomean(other, "peak")) for other in others]]


def table(results: Results) -> str:
    """A Markdown table, padded so that it reads well in a terminal too."""
    head, rows = table_rows(results)
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w)
                                 for i, (c, w) in enumerate(zip(cells, widths))) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def write_csv(path: Path, samples: Samples) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["benchmark", "allocator", "round", "wall_s", "cpu_s", "peak_kib", "failed"])
        for benchmark, row in samples.items():
            for allocator, runs in row.items():
                for number, s in enumerate(runs, 1):
                    numbers = [f"{s.wall_s:.6f}", f"{s.cpu_s:.6f}", s.peak_kib, 0] if s else ["", "", "", 1]
                    writer.writerow([benchmark, allocator, number, *numbers])


def write_json(path: Path, results: Results, environment: dict, verdicts: list[dict], small: dict,
               failures: list[str]) -> None:
    summary = {b: {a: {"time_ratio": results.ratio(b, a, results.metric), "peak_ratio": results.ratio(b, a, "peak")}
                   for a in results.allocators} for b in results.samples}
    means = {a: {"time": results.geomean(a, results.metric), "peak": results.geomean(a, "peak")}
             for a in results.allocators}
    raw = {b: {a: [asdict(s) if s else None for s in runs] for a, runs in row.items()}
           for b, row in results.samples.items()}
    document = {"environment": environment, "base": results.base, "metric": results.metric, "verdicts": verdicts,
                "geometric_means": means, "ratios": summary, "small": small, "failures": failures, "samples": raw}
    path.write_text(json.dumps(document, indent=1) + "\n")


def markdown(results: Results, environment: dict, verdicts: list[dict], failures: list[str]) -> str:
    versions = "; ".join(f"{name}: {version}" for name, version in environment["allocators"].items())
    lines = [f"Measured {environment['date']}: {environment['cpu']}, {environment['cores']} cores, Linux "
             f"{environment['kernel']}, {environment['rounds']} rounds"
             f"{', work divided by ' + str(environment['scale']) if environment['scale'] > 1 else ''}. {versions}.",
             "", f"Time ({results.metric}) and peak RSS: medians of {results.base}, for the others ratios to it.", "",
             table(results)]
    if verdicts or failures:
        lines += ["", *(f"* {verdict_line(v)}" for v in verdicts), *(f"* FAILED {f}" for f in failures)]
    return "\n".join(lines)


def insert_between_markers(path: Path, text: str) -> None:
    old = path.read_text()
    begin, end = (old.find(marker) for marker in MARKERS)
    if begin < 0 or end < begin:
        raise ValueError(f"{path.name} has no {MARKERS[0]} ... {MARKERS[1]}")
    path.write_text(old[:begin] + MARKERS[0] + "\n" + text + "\n" + old[end:])
