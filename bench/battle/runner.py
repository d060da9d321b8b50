"""Runs the scenarios: one process works at a time, those that have fallen silent go on beside it."""

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from battle.configurations import Configuration, Rank
from battle.outside import Outside
from battle.scenarios import SIDE_BY_SIDE_FROM_MS, Scenario
from measure import RunFailed, last_line, tool_environment, verify_bindings

TIMEOUT_S = 120
LATE_US = 25000  # a sample this late, a keeper or bursts that waited this long for a core: it was busy elsewhere
TRIES = {"idle": 4, "recur": 2}  # for what a verdict rests on; a disturbed run of the others counts

# runs[scenario][configuration] lists its runs, one a round; None for one that failed.
Runs = dict[str, dict[str, list[dict | None]]]


def variables(configuration: Configuration) -> dict[str, str]:
    library = configuration.allocator.preload()
    return configuration.environment | ({"LD_PRELOAD": str(library)} if library else {})


class Process:
    """One run of the program `battle`."""

    def __init__(self, program: Path, scenario: Scenario, configuration: Configuration, until_ms: int, delay_ms: int):
        self.scenario, self.configuration = scenario, configuration
        self.warning, self.disturbed = "", False
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([program, *scenario.arguments(until_ms, delay_ms)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.errors,
                                        env=tool_environment() | variables(configuration))
        self.watchdog = threading.Timer(TIMEOUT_S, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def wait_settled(self) -> int:
        """Until only long silence is left; returns for how long the machine had no core for it, in us."""
        words = self.process.stdout.readline().split()
        return max(map(int, words[1:]), default=0) if words[:1] == [b"settled"] else 0

    def drop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.close()

    def close(self) -> None:
        self.watchdog.cancel()
        self.errors.close()

    def finish(self) -> dict:
        output = self.process.communicate()[0]
        self.errors.seek(0)
        self.warning = last_line(self.errors.read())
        self.close()
        if self.process.returncode != 0:
            raise RunFailed(f"exit code {self.process.returncode}: {self.warning}")
        try:
            return json.loads(output)
        except ValueError as error:
            raise RunFailed("its report cannot be read") from error


def memory_available_mib() -> int:
    with open("/proc/meminfo") as lines:
        found = {words[0]: int(words[1]) for words in map(str.split, lines)}
    return found["MemAvailable:"] // 1024


class Runner:
    def __init__(self, program: Path, until_ms: int, note: Callable[[str], None]):
        self.program, self.until_ms, self.note = program, until_ms, note
        self.runs: Runs = {}
        self.failures: list[str] = []
        self.warnings: dict[str, str] = {}
        self.silent: list[Process | Outside] = []
        self.disturbed = 0
        # Half of what is free now: silent processes of allocators that give nothing back hold all of their memory.
        self.budget_mib = memory_available_mib() // 2

    def start(self, scenario: Scenario, configuration: Configuration, delay_ms: int) -> Process | Outside:
        if scenario.kind == "real":
            return Outside(scenario, configuration, self.until_ms)
        return Process(self.program, scenario, configuration, self.until_ms, delay_ms)

    def collect(self, one: Process | Outside) -> None:
        rows = self.runs.setdefault(one.scenario.name, {}).setdefault(one.configuration.name, [])
        try:
            rows.append(one.finish() | {"disturbed": one.disturbed})
        except RunFailed as error:
            rows.append(None)
            failure = f"{one.scenario.name} under {one.configuration.name}: {error}"
            self.failures.append(failure)
            self.note(f"FAILED {failure}")
        if one.warning:
            self.warnings.setdefault(one.configuration.name, one.warning)

    def make_room(self, mib: int) -> None:
        while self.silent and sum(2 * one.scenario.mib for one in self.silent) + 2 * mib > self.budget_mib:
            self.collect(self.silent.pop(0))

    def drain(self) -> None:
        while self.silent:
            self.collect(self.silent.pop(0))

    def run(self, scenario: Scenario, configurations: list[Configuration]) -> None:
        """One run of each; more than one at a time only when their bursts fall into each other's gaps."""
        self.make_room(scenario.mib * len(configurations))
        judged = scenario.kind in TRIES and any(one.rank == Rank.JUDGED for one in configurations)
        for left in reversed(range(TRIES[scenario.kind] if judged else 1)):
            lag_ms = scenario.gap_ms // len(configurations)
            started = [self.start(scenario, one, i * lag_ms) for i, one in enumerate(configurations)]
            late_us = max(one.wait_settled() for one in started)
            if late_us <= LATE_US or left == 0:
                break
            for one in started:
                one.drop()
        for one in started:
            one.disturbed = late_us > LATE_US
        self.disturbed += judged and late_us > LATE_US
        self.silent += started

    def verify(self, configuration: Configuration, scratch: Path) -> None:
        """The loader's own messages prove that the program uses the allocator; one run that does not count."""
        debug = scratch / f"debug-{configuration.name}"
        scenario = Scenario("", "", ("idle", "mib=1"), times=(0,))
        done = subprocess.run([self.program, *scenario.arguments(0)], capture_output=True, timeout=TIMEOUT_S,
                              env=tool_environment() | variables(configuration)
                              | {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(debug)})
        if done.returncode != 0 or b"cannot be preloaded" in done.stderr:
            raise RunFailed(last_line(done.stderr))
        verify_bindings(configuration.allocator, debug)


def groups(scenario: Scenario, configurations: list[Configuration], number: int) -> list[list[Configuration]]:
    """Who runs together, in an order that rotates with the round: two at a time where gaps leave room, so
    that both meet the same noise."""
    size = 2 if scenario.kind == "recur" and scenario.gap_ms >= SIDE_BY_SIDE_FROM_MS else 1
    # static and hybrid, which P4 compares, stand side by side.
    order = sorted(configurations, key=lambda one: one.name not in ("static", "hybrid"))
    found = [order[i:i + size] for i in range(0, len(order), size)]
    if size > 1 and number % 2 == 0:
        found = [group[::-1] for group in found]
    shift = number % len(found) if found else 0
    return found[shift:] + found[:shift]


def seconds_since(start: float) -> str:
    return f"{time.monotonic() - start:.0f} s"
