#!/usr/bin/python3
"""Compares allocators on the benchmark set and says whether the promises about speed and size hold.

Every allocator runs the same binaries, preloaded. Rounds are interleaved: in each, every benchmark runs once under each
allocator, in an order that rotates. The first round warms up and is not counted; in it the loader's own
messages prove that each program really uses the allocator. Exit codes: 0, 1 when a run failed, 2 for a usage error.
"""

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import allocators as known
import report
import small
import suite
from measure import Benchmark, Place, RunFailed, Sample

ROOT = Path(__file__).resolve().parent.parent
QUICK_SCALE, QUICK_ROUNDS, ROUNDS = 6, 2, 5


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("libraries", nargs="*", metavar="NAME=PATH.so", help="more allocators, or another tide")
    parser.add_argument("--runs", type=int, metavar="N",
                        help=f"rounds that count ({ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--only", type=re.compile, metavar="REGEX", help="benchmarks by name")
    parser.add_argument("--quick", action="store_true", help=f"divide the work by {QUICK_SCALE}: under two minutes")
    parser.add_argument("--allocators", metavar="LIST",
                        help=f"comma-separated ({','.join(known.DEFAULT)}); NAME=PATH.so come on top")
    parser.add_argument("--metric", choices=("wall", "cpu"), default="wall",
                        help="time that is compared; cpu on a machine that others use too")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="build directory (build)")
    parser.add_argument("--programs", type=Path, help="compiled benchmark programs (BUILD/bench)")
    parser.add_argument("--out", type=Path, help="directory for results.csv and results.json (BUILD/bench/results)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replace the table between the markers of FILE")
    parser.add_argument("--no-small", action="store_true",
                        help="leave out start-up, size and metadata (P6), as --only does too")
    parser.add_argument("--progress", action="store_true",
                        help="also print the plan and what is done of it on stderr, for tide bench")
    parser.add_argument("--list", action="store_true", help="print the names of the benchmarks and end")
    arguments = parser.parse_args()
    if arguments.runs is None:
        arguments.runs = QUICK_ROUNDS if arguments.quick else ROUNDS
    arguments.small = not (arguments.no_small or arguments.only)
    if arguments.runs < 1:
        parser.error("--runs is at least 1")
    arguments.programs = (arguments.programs or arguments.build / "bench").resolve()
    arguments.out = arguments.out or arguments.build / "bench" / "results"
    return arguments


def choose_allocators(arguments: argparse.Namespace) -> list[known.Allocator]:
    extra = {}
    for item in arguments.libraries:
        name, equals, path = item.partition("=")
        if not equals or not re.fullmatch(r"[\w.+-]+", name):
            raise known.AllocatorError(f"{item}: expected NAME=PATH.so")
        extra[name] = Path(path)
    names = arguments.allocators.split(",") if arguments.allocators else list(known.DEFAULT)
    return known.find_all(names, extra, arguments.build / "libtidemalloc.so")


def check_programs(benchmarks: list[Benchmark], programs: Path) -> None:
    """Everything that the benchmarks need is there, or one line that says what to do."""
    wanted = {"launch", "hello", "starts", "heap"} | {b.argv[0] for b in benchmarks if not b.real}
    missing = sorted(name for name in wanted if not (programs / name).is_file())
    if missing:
        raise known.AllocatorError(f"not built: {', '.join(missing)}: run cmake --build build --target bench_programs")
    for benchmark in benchmarks:
        for program, package in benchmark.needs:
            if not shutil.which(program):
                raise known.AllocatorError(f"{benchmark.name} needs {program}: apt-get install {package}")


def environment(chosen: list[known.Allocator], arguments: argparse.Namespace, packages: set[str]) -> dict:
    """What the numbers depend on. No name of the machine and no path."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    huge_mode = re.search(r"\[(\w+)\]", huge.read_text()) if huge.exists() else None
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": cpu[1] if cpu else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "transparent_huge_pages": huge_mode[1] if huge_mode else "unknown",
        "load_at_start": round(os.getloadavg()[0], 2),
        "rounds": arguments.runs,
        "scale": QUICK_SCALE if arguments.quick else 1,
        "allocators": {a.name: a.version for a in chosen},
        "packages": {name: known.package_version(name) for name in sorted(packages)},
    }


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def steps(names: list[str]) -> str:
    """For --progress: a step NAME*WEIGHT of the plan each, which takes as long as one of the same name did before."""
    return " ".join(f"{name}*1" for name in names)


class Session:
    """All rounds; keeps the samples, the digests and what failed."""

    def __init__(self, benchmarks: list[Benchmark], chosen: list[known.Allocator], place: Place, progress: bool):
        self.benchmarks, self.chosen, self.place, self.progress = benchmarks, chosen, place, progress
        self.samples: report.Samples = {b.name: {a.name: [] for a in chosen} for b in benchmarks}
        self.digests: dict[str, tuple[str, str]] = {}
        self.failed: dict[tuple[str, str], str] = {}

    def attempt(self, benchmark: Benchmark, allocator: known.Allocator, verify: bool) -> Sample | None:
        if (benchmark.name, allocator.name) in self.failed:
            return None
        try:
            sample = benchmark.run(allocator, self.place, verify)
            first, digest = self.digests.setdefault(benchmark.name, (allocator.name, sample.digest))
            if digest != sample.digest:
                raise RunFailed(f"the output differs from that under {first}")
            return sample
        except RunFailed as error:
            why = re.sub(r"(?:/[\w.+-]+)+/", "", str(error))  # results hold no path of the machine
            self.failed[benchmark.name, allocator.name] = why
            note(f"FAILED {benchmark.name} under {allocator.name}: {why}")
            return None

    def round(self, number: int) -> None:
        """Round 0 warms up and verifies. A pair that failed once is not tried again."""
        for place_in_list, benchmark in enumerate(self.benchmarks):
            shift = (number + place_in_list) % len(self.chosen)
            for allocator in self.chosen[shift:] + self.chosen[:shift]:
                sample = self.attempt(benchmark, allocator, verify=number == 0)
                if self.progress:
                    note(f"progress done {steps([f'{benchmark.name}/{allocator.name}'])}")
                if number > 0:
                    self.samples[benchmark.name][allocator.name].append(sample)

    def failures(self) -> list[str]:
        return [f"{benchmark} under {allocator}: {why}" for (benchmark, allocator), why in self.failed.items()]


def measure_small(chosen: list[known.Allocator], place: Place, failures: list[str]) -> tuple[dict, list[dict]]:
    try:
        note("start-up, size and metadata")
        found = small.measure(chosen, place)
        return found, small.verdicts(found)
    except (RunFailed, OSError) as error:
        failures.append(f"the measurement of start-up and size: {error}")
        return {}, [report.verdict("P6", False, "could not be measured")]


def main() -> int:
    arguments = parse_arguments()
    scale = QUICK_SCALE if arguments.quick else 1
    benchmarks = [b for b in suite.benchmarks(scale) if not arguments.only or arguments.only.search(b.name)]
    if arguments.list:
        print("\n".join(b.name for b in benchmarks))
        return 0
    try:
        if not benchmarks:
            raise known.AllocatorError("no benchmark has a name like that: see --list")
        chosen = choose_allocators(arguments)
        check_programs(benchmarks, arguments.programs)
    except known.AllocatorError as error:
        note(f"run.py: {error}")
        return 2

    start = time.monotonic()
    packages = {package for b in benchmarks for _, package in b.needs}
    facts = environment(chosen, arguments, packages)
    with tempfile.TemporaryDirectory(prefix="tide-bench-") as directory:
        place = Place(arguments.programs, Path(directory))
        for benchmark in benchmarks:
            if benchmark.prepare:
                benchmark.prepare(place.directory, scale)
        session = Session(benchmarks, chosen, place, arguments.progress)
        if arguments.progress:
            pairs = [f"{b.name}/{a.name}" for b in benchmarks for a in chosen]
            note(f"progress plan {steps(pairs * (arguments.runs + 1))}")
        for number in range(arguments.runs + 1):
            session.round(number)
            note(f"{'warm-up' if number == 0 else f'round {number} of {arguments.runs}'} done, "
                 f"{time.monotonic() - start:.0f} s")
        failures = session.failures()
        found, verdicts = measure_small(chosen, place, failures) if arguments.small else ({}, [])

    results = report.Results(session.samples, [a.name for a in chosen], arguments.metric)
    verdicts = results.verdicts() + verdicts
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.write_csv(arguments.out / "results.csv", session.samples)
    report.write_json(arguments.out / "results.json", results, facts, verdicts, found, failures)
    print(report.table(results) + "\n")
    for one in verdicts:
        print(report.verdict_line(one))
    for failure in failures:
        print(f"FAILED {failure}")
    if arguments.markdown:
        report.insert_between_markers(arguments.markdown, report.markdown(results, facts, verdicts, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
