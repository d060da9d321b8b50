#!/usr/bin/python3
"""The battle test: works hard, falls silent, and says who gave the memory back, when, and at what cost.

Every configuration runs the same program; one works at a time, and long silences are watched side by side. Prints one
table of memory, one of recurring bursts, one of steady loads, and the verdict for each promise and for each mode.
Exit codes: 0 when P2 to P5 held for hybrid, 1 when not, 2 for a usage error.
"""

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
if __name__ == "__main__":
    sys.path[0] = str(BENCH)  # its modules, and this folder as the package `battle`

from battle import configurations as known  # noqa: E402
from battle import outside, scenarios, tables, verdicts  # noqa: E402
from battle.runner import Runner, groups, seconds_since  # noqa: E402
from measure import RunFailed  # noqa: E402

ROUNDS = 3
Configurations = list[known.Configuration]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("libraries", nargs="*", metavar="NAME=PATH.so", help="more allocators")
    parser.add_argument("--runs", type=int, metavar="N",
                        help=f"rounds ({ROUNDS}; 1 with --quick); in all of them only what verdicts and --configs name")
    parser.add_argument("--only", metavar="LIST", help="scenarios: comma-separated names, * allowed (see --list)")
    parser.add_argument("--configs", metavar="LIST", help=f"comma-separated ({','.join(known.DEFAULT)})")
    parser.add_argument("--quick", action="store_true",
                        help=f"{', '.join(known.QUICK)} and 3 s of silence: under three minutes")
    parser.add_argument("--metric", choices=("wall", "cpu"), default="cpu",
                        help="time of bursts and of the first criteria: cpu, the keeper's included, is steadier on a "
                             "machine that others use too; P4 looks at both")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="build directory (build)")
    parser.add_argument("--program", type=Path, help="the compiled program (BUILD/bench/battle)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="every sample (BUILD/battle/results.csv)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything (BUILD/battle/results.json)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="tables and verdicts, between the page's markers")
    parser.add_argument("--progress", action="store_true",
                        help="also print the plan and what is done of it on stderr, for tide battle")
    parser.add_argument("--list", action="store_true", help="print the scenarios and end")
    arguments = parser.parse_args()
    if arguments.runs is None:
        arguments.runs = 1 if arguments.quick else ROUNDS
    if arguments.runs < 1:
        parser.error("--runs is at least 1")
    arguments.program = (arguments.program or arguments.build / "bench" / "battle").resolve()
    arguments.csv = arguments.csv or arguments.build / "battle" / "results.csv"
    arguments.json = arguments.json or arguments.build / "battle" / "results.json"
    return arguments


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def choose_configurations(arguments: argparse.Namespace) -> Configurations:
    extra = {}
    for item in arguments.libraries:
        name, equals, path = item.partition("=")
        if not equals or not re.fullmatch(r"[\w.+-]+", name):
            raise known.AllocatorError(f"{item}: expected NAME=PATH.so")
        extra[name] = Path(path)
    usual = known.QUICK if arguments.quick else known.DEFAULT
    names = arguments.configs.split(",") if arguments.configs else list(usual)
    return known.find_all(names, extra, arguments.build / "libtidemalloc.so", named=bool(arguments.configs))


def choose_scenarios(arguments: argparse.Namespace) -> list[scenarios.Scenario]:
    everything = scenarios.all_scenarios()
    if not arguments.only:
        return [s for s in everything if s.quick or not arguments.quick]
    patterns = arguments.only.split(",")
    for pattern in patterns:
        if not any(fnmatch(s.name, pattern) for s in everything):
            raise known.AllocatorError(f"no scenario is called {pattern}: see --list")
    return [s for s in everything if any(fnmatch(s.name, pattern) for pattern in patterns)]


def check_programs(chosen: list[scenarios.Scenario], program: Path) -> None:
    if not program.is_file():
        raise known.AllocatorError("not built: run make battle, or cmake --build build --target bench_programs")
    for scenario in chosen:
        for needed, package in outside.NEEDS.get(scenario.name, ()):
            if not shutil.which(needed):
                raise known.AllocatorError(f"{scenario.name} needs {needed}: apt-get install {package}")


def environment(configurations: Configurations, arguments: argparse.Namespace) -> dict:
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
        "metric": arguments.metric,
        "configurations": {c.name: c.allocator.version for c in configurations},
    }


def repeats_of(scenario: scenarios.Scenario, quick: bool) -> int:
    return scenarios.QUICK_REPEATS if quick and scenario.kind == "recur" else scenario.repeats


def part_takers(scenario: scenarios.Scenario, number: int, configurations: Configurations) -> Configurations:
    return [c for c in configurations if scenarios.runs_in_round(scenario, number, c.name, c.rank)]


def plan(chosen: list[scenarios.Scenario], configurations: Configurations, rounds: int, quick: bool) -> list[str]:
    """For --progress: a step NAME*WEIGHT a scenario and round, weighted by the number of its runs."""
    found = []
    for number in range(1, rounds + 1):
        for scenario in chosen:
            weight = repeats_of(scenario, quick) * len(part_takers(scenario, number, configurations))
            found += [f"{scenario.name}*{weight}"] if weight else []
    return found


def battle(runner: Runner, chosen: list[scenarios.Scenario], configurations: Configurations, rounds: int,
           quick: bool, progress: bool) -> None:
    start = time.monotonic()
    todo = iter(plan(chosen, configurations, rounds, quick))
    for number in range(1, rounds + 1):
        for scenario in chosen:
            taking_part = part_takers(scenario, number, configurations)
            if scenario.kind in scenarios.ALONE:
                runner.drain()
            for repeat in range(repeats_of(scenario, quick)):
                for group in groups(scenario, taking_part, number + repeat):
                    runner.run(scenario, group)
            if taking_part:
                step = next(todo)
                if progress:
                    note(f"progress done {step}")
                note(f"round {number} of {rounds}: {scenario.name} done, {seconds_since(start)}")
        runner.drain()


def exit_code(found: list[verdicts.Verdict], partial: bool) -> int:
    """A promise that was not measured counts as held only when the user chose what to run."""
    return 0 if all(v.held or (v.held is None and partial) for v in found) else 1


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        for scenario in scenarios.all_scenarios():
            print(f"{scenario.name:18} {scenario.promise:3} {scenario.what}")
        return 0
    try:
        chosen = choose_scenarios(arguments)
        configurations = choose_configurations(arguments)
        check_programs(chosen, arguments.program)
        facts = environment(configurations, arguments)
        until_ms = scenarios.QUICK_UNTIL_MS if arguments.quick else max(scenarios.TIMES)
        runner = Runner(arguments.program, until_ms, note)
        with tempfile.TemporaryDirectory(prefix="tide-battle-") as scratch:
            for configuration in configurations:
                runner.verify(configuration, Path(scratch))
    except (known.AllocatorError, RunFailed) as error:
        note(f"run.py: {error}")
        return 2

    if arguments.progress:
        note("progress plan " + " ".join(plan(chosen, configurations, arguments.runs, arguments.quick)))
    battle(runner, chosen, configurations, arguments.runs, arguments.quick, arguments.progress)
    for name, warning in runner.warnings.items():
        note(f"{name} wrote on stderr: {warning}")
    if runner.disturbed:
        note(f"{runner.disturbed} runs were disturbed by other work on this machine, in spite of repeats")

    order = {c.name: i for i, c in enumerate(configurations)}
    runs = {s.name: dict(sorted(runner.runs[s.name].items(), key=lambda item: order[item[0]]))
            for s in chosen if s.name in runner.runs}
    found, seed = verdicts.verdicts(runs, chosen), verdicts.seed_rows(runs, arguments.metric)
    parts = tables.sections(runs, chosen, seed, arguments.metric)
    lines = tables.verdict_lines(found, runner.failures)
    for path in (arguments.csv, arguments.json):
        path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_csv(arguments.csv, runs)
    tables.write_json(arguments.json, facts, runs, found, seed, runner.failures)
    if arguments.markdown:
        tables.write_markdown(arguments.markdown, facts, parts, lines)
    for title, table in parts:
        print(f"{title}\n\n{table}\n")
    print("\n".join(lines))
    return exit_code(found, partial=bool(arguments.only or arguments.configs))


if __name__ == "__main__":
    sys.exit(main())
