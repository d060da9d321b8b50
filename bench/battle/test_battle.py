"""Tests of what the verdicts rest on: data that holds, and data that breaks one promise each."""

import contextlib
import io
import tempfile
import unittest
from unittest import mock
from pathlib import Path

import report
from battle import run as command
from battle import scenarios, tables, verdicts
from battle.configurations import Configuration, Rank
from battle.runner import groups

KIB, MS = 1024, 1000000
BASE_KIB = 8000
BY_NAME = {s.name: s for s in scenarios.all_scenarios()}


def sample(at_ms: int, over_kib: float, threads: int = 1, switches: int = 0) -> dict:
    return {"at_ms": at_ms, "at_us": at_ms * 1000, "rss_kib": BASE_KIB + over_kib,
            "private_dirty_kib": BASE_KIB + over_kib, "anon_huge_kib": 0, "lazy_free_kib": 0, "others_cpu_ns": 5 * MS,
            "others_switches": switches, "threads": threads}


def silence(curve: dict[int, float], live_kib: int = 0, quiet: dict | None = None, wall_ms: float = 100,
            cpu_ms: float = 100, threads: int = 1, switches: int = 0) -> dict:
    """A run whose memory over the baseline is, from each time on, what `curve` says."""
    def over(at_ms: int) -> float:
        return curve[max(t for t in curve if t <= at_ms)]

    still = {"from_ms": 1000, "switches": 0, "foreign": [], "foreign_cpu_ns": 0, "sleeper_switches": 0}
    return {"baseline": sample(0, 0), "burst": {"wall_ns": wall_ms * MS, "cpu_ns": cpu_ms * MS},
            "live_page_kib": live_kib, "cycles": [], "quiet": quiet or still,
            "samples": [sample(t, over(t), threads, switches) for t in scenarios.TIMES]}


def bursts(ms: list[float], cpu_ms: list[float] | None = None, curve: dict[int, float] | None = None) -> dict:
    found = silence(curve or {0: 80 * KIB, 200: 0})
    found["cycles"] = [{"wall_ns": wall * MS, "cpu_ns": cpu * MS, "whole_cpu_ns": cpu * MS}
                       for wall, cpu in zip(ms, cpu_ms or ms)]
    return found


EBBS = {0: 130 * KIB, 200: 600}
LEARNED, STATIC = [60, 50, 50, 20, *[14] * 8], [50, 20, *[13] * 10]


def runs_that_hold() -> dict:
    return {
        "burst-mixed": {"static": [silence({0: 130 * KIB})] * 3, "hybrid": [silence(EBBS)] * 3},
        "sleepers-64": {"hybrid": [silence(EBBS)] * 3},
        "scattered-tiny": {"hybrid": [silence({0: 140 * KIB, 500: 61 * KIB}, live_kib=60 * KIB)]},
        "recur-100": {"static": [bursts(STATIC)] * 3, "hybrid": [bursts(LEARNED)] * 3},
        "small": {"hybrid": [silence({0: 1800, 10: 500})]},
        "steady-heavy": {name: [{"load": {"wall_ns": 1000 * MS, "cpu_ns": 2000 * MS, "operations": 1}}] * 3
                         for name in ("static", "hybrid")},
    }


class Verdicts(unittest.TestCase):
    def judge(self, runs: dict) -> dict[str, verdicts.Verdict]:
        return {v.promise: v for v in verdicts.verdicts(runs, list(BY_NAME.values()))}

    def broken(self, changes: dict) -> list[str]:
        """The promises that do not hold when these rows replace those that do."""
        runs = runs_that_hold()
        for scenario, row in changes.items():
            runs[scenario] = runs.get(scenario, {}) | row
        return [promise for promise, verdict in self.judge(runs).items() if not verdict.held]

    def test_all_hold(self):
        self.assertEqual(self.broken({}), [])

    def test_one_run_of_three_that_is_late(self):
        late = silence({0: 130 * KIB, 500: 600})
        found = self.broken({"sleepers-64": {"hybrid": [silence(EBBS), late, silence(EBBS)]}})
        self.assertEqual(found, ["P2 ebbs"])

    def test_the_worst_scenario_is_named(self):
        runs = runs_that_hold() | {"remote-main": {"hybrid": [silence({0: 130 * KIB, 200: 2048})]}}
        detail = self.judge(runs)["P2 ebbs"].detail
        self.assertIn("2.00 MiB", detail)
        self.assertIn("remote-main", detail)

    def test_a_disturbed_run_counts_but_says_so(self):
        late = silence({0: 130 * KIB, 500: 600}) | {"disturbed": True}
        runs = runs_that_hold() | {"burst-mid": {"hybrid": [late]}}
        self.assertFalse(self.judge(runs)["P2 ebbs"].held)
        self.assertIn("other work", self.judge(runs)["P2 ebbs"].detail)

    def test_memory_that_comes_back_later(self):
        self.assertEqual(self.broken({"burst-mixed": {"hybrid": [silence(EBBS | {3000: 1100})]}}), ["P2 ebbs"])

    def test_what_other_modes_hold_breaks_nothing(self):
        row = {"static": [silence({0: 130 * KIB})], "hybrid": [silence(EBBS)]}
        self.assertEqual(self.broken({"burst-mid": row}), [])

    def test_a_learned_hold_may_last_one_and_a_quarter_gaps(self):
        def after(curve):
            return self.broken({"recur-1000": {"static": [bursts(STATIC)], "hybrid": [bursts(LEARNED, curve=curve)]}})

        self.assertEqual(after({0: 80 * KIB, 3000: 0}), [])
        self.assertEqual(after({0: 80 * KIB, 12000: 0}), ["P2 ebbs after recurring bursts"])

    def test_a_short_gap_is_no_reason_to_hold_for_long(self):
        row = {"static": [bursts(STATIC)], "hybrid": [bursts(LEARNED, curve={0: 80 * KIB, 1000: 0})]}
        self.assertEqual(self.broken({"recur-100": row}), ["P2 ebbs after recurring bursts"])

    def test_survivors_set_the_limit(self):
        def held(kib):
            return self.broken({"scattered-tiny": {"hybrid": [silence({0: kib}, live_kib=60 * KIB)]}})

        self.assertEqual(held(66.9 * KIB), [])
        self.assertEqual(held(67.1 * KIB), ["P3 ebbs around survivors"])

    def test_bursts_that_cost_more(self):
        slow = [60, 50, 50, 20, *[14.5] * 8]
        self.assertEqual(self.broken({"recur-100": {"hybrid": [bursts(slow)] * 3}}), ["P4 flows back cheaply"])
        only_cpu = [bursts(LEARNED, cpu_ms=slow)] * 3
        self.assertEqual(self.broken({"recur-100": {"hybrid": only_cpu}}), ["P4 flows back cheaply"])

    def test_a_slow_round_is_slow_for_both(self):
        slow = [10 * ms for ms in LEARNED]
        row = {"static": [bursts(STATIC), bursts([10 * ms for ms in STATIC]), bursts(STATIC)],
               "hybrid": [bursts(LEARNED), bursts(slow), bursts(LEARNED)]}
        self.assertEqual(self.broken({"recur-100": row}), [])

    def test_the_first_cycles_are_for_learning(self):
        slow_start = [900, 900, 900, 900, *[14] * 8]
        self.assertEqual(self.broken({"recur-100": {"hybrid": [bursts(slow_start)] * 3}}), [])

    def test_gaps_outside_the_promise_do_not_count(self):
        row = {"static": [bursts(STATIC)], "hybrid": [bursts([60] * 12)]}
        self.assertEqual(self.broken({"recur-20": row, "recur-2000": row}), [])

    def test_one_wake_up(self):
        keeper = {"name": "tide-keeper", "switches": 1, "cpu_ns": 0}
        quiet = {"from_ms": 1000, "switches": 1, "foreign": [keeper], "foreign_cpu_ns": 0, "sleeper_switches": 0}
        runs = runs_that_hold() | {"burst-mid": {"hybrid": [silence(EBBS, quiet=quiet)]}}
        verdict = self.judge(runs)["P5 still water"]
        self.assertFalse(verdict.held)
        self.assertIn("tide-keeper", verdict.detail)

    def test_cpu_time_without_a_wake_up(self):
        keeper = {"name": "tide-keeper", "switches": 0, "cpu_ns": 700}
        quiet = {"from_ms": 1000, "switches": 0, "foreign": [keeper], "foreign_cpu_ns": 700, "sleeper_switches": 0}
        self.assertEqual(self.broken({"burst-mid": {"hybrid": [silence(EBBS, quiet=quiet)]}}), ["P5 still water"])

    def test_a_trickle_wakes_the_keeper_and_may(self):
        quiet = {"from_ms": 1000, "switches": 9, "foreign": [], "foreign_cpu_ns": 9, "sleeper_switches": 0}
        self.assertEqual(self.broken({"trickle": {"hybrid": [silence(EBBS, quiet=quiet)]}}), [])

    def test_a_small_program(self):
        for run in (silence({0: 700}), silence({0: 100}, threads=2), silence({0: 100}, switches=1)):
            self.assertEqual(self.broken({"small": {"hybrid": [run]}}), ["P5 a small program stays alone"])

    def test_a_failed_run_is_not_a_promise_kept(self):
        self.assertEqual(self.broken({"sleepers-32": {"hybrid": [silence(EBBS), None]}}), ["P2 ebbs", "P5 still water"])
        self.assertEqual(self.broken({"recur-200": {"static": [bursts(STATIC)], "hybrid": [None]}}),
                         ["P2 ebbs after recurring bursts", "P4 flows back cheaply", "P5 still water"])

    def test_nothing_measured(self):
        found = verdicts.verdicts({}, list(BY_NAME.values()))
        self.assertEqual({v.held for v in found}, {None})
        self.assertEqual(command.exit_code(found, partial=True), 0)
        self.assertEqual(command.exit_code(found, partial=False), 1)

    def test_exit_code(self):
        everything = list(BY_NAME.values())
        self.assertEqual(command.exit_code(verdicts.verdicts(runs_that_hold(), everything), partial=False), 0)
        late = runs_that_hold() | {"burst-mid": {"hybrid": [silence({0: 2000})]}}
        self.assertEqual(command.exit_code(verdicts.verdicts(late, everything), partial=True), 1)


class FirstCriteria(unittest.TestCase):
    def row(self, kept_kib: float = 100, cpu_ms: float = 100, load_ms: float = 2000) -> verdicts.SeedRow:
        runs = runs_that_hold()
        runs["burst-mixed"]["hybrid"] = [silence({0: kept_kib}, cpu_ms=cpu_ms)] * 3
        runs["steady-heavy"]["hybrid"] = [{"load": {"wall_ns": 1, "cpu_ns": load_ms * MS, "operations": 1}}] * 3
        return verdicts.seed_rows(runs, "cpu")[0]

    def test_go(self):
        row = self.row()
        self.assertEqual((row.mode, row.tier, row.gives, row.cheap, row.go), ("hybrid", "mixed", True, True, True))

    def test_gives_too_little(self):
        self.assertEqual(self.row(kept_kib=129.5 * KIB).go, False)

    def test_costs_too_much(self):
        self.assertEqual(self.row(cpu_ms=106).cheap, False)
        self.assertEqual(self.row(load_ms=2106).cheap, False)
        self.assertEqual(self.row(cpu_ms=104, load_ms=2080).go, True)

    def test_unknown_without_the_steady_load(self):
        runs = runs_that_hold()
        del runs["steady-heavy"]
        self.assertIsNone(verdicts.seed_rows(runs, "cpu")[0].go)

    def test_pairs_runs_of_the_same_round(self):
        # The machine was ten times slower in the second round: the ratio does not see it.
        ours = [silence(EBBS, cpu_ms=ms) for ms in (100, 1000, 110)]
        control = [silence(EBBS, cpu_ms=ms) for ms in (200, 2000, 220)]
        self.assertAlmostEqual(verdicts.ratio_of_rounds(ours, control, "burst", "cpu_ns"), 0.5)


class Tables(unittest.TestCase):
    def setUp(self):
        self.runs = runs_that_hold() | {"burst-mid": {"static": [None], "hybrid": [silence(EBBS)]}}
        self.runs["steady-heavy"] = {}

    def test_show_every_pair_and_survive_failures(self):
        everything = list(BY_NAME.values())
        found = tables.sections(self.runs, everything, verdicts.seed_rows(self.runs, "cpu"), "cpu")
        text = "\n".join(table for _, table in found)
        for words in ("| burst-mid      | static        |     - |", "| scattered-tiny | hybrid ", "| 100 ms | hybrid "):
            self.assertIn(words, text)

    def test_files(self):
        with tempfile.TemporaryDirectory() as directory:
            csv, json, page = (Path(directory) / name for name in ("a.csv", "a.json", "a.md"))
            tables.write_csv(csv, self.runs)
            tables.write_json(json, {}, self.runs, [], [], [])
            facts = {"date": "", "cpu": "", "cores": 2, "kernel": "", "rounds": 1, "configurations": {}}
            for text in ("first", "second"):
                tables.write_markdown(page, facts, [("title", "table")], [text])
            self.assertIn("burst-mid,static,1,failed", csv.read_text())
            self.assertIn("second", page.read_text())
            self.assertNotIn("first", page.read_text())
            self.assertEqual(page.read_text().count(report.MARKERS[0]), 1)


class Plan(unittest.TestCase):
    def configurations(self) -> list[Configuration]:
        return [Configuration(name, None) for name in ("static", "flush", "hybrid", "glibc")]

    def names(self, scenario: str, number: int) -> list[list[str]]:
        return [[c.name for c in group] for group in groups(BY_NAME[scenario], self.configurations(), number)]

    def test_silence_runs_alone_and_in_turn(self):
        first, second = self.names("burst-mid", 1), self.names("burst-mid", 2)
        self.assertEqual({len(group) for group in first}, {1})
        self.assertCountEqual(first, second)
        self.assertNotEqual(first, second)

    def test_bursts_with_gaps_run_beside_the_control(self):
        self.assertIn(["static", "hybrid"], self.names("recur-500", 1))
        self.assertIn(["hybrid", "static"], self.names("recur-500", 2))

    def rounds(self, scenario: str, name: str, rank: Rank) -> list[int]:
        return [n for n in (1, 2, 3) if scenarios.runs_in_round(BY_NAME[scenario], n, name, rank)]

    def test_what_a_verdict_needs_runs_in_every_round(self):
        for scenario in ("burst-mid", "sleepers-64", "small", "recur-50", "cost-tiny", "steady-heavy"):
            self.assertEqual(self.rounds(scenario, "hybrid", Rank.JUDGED), [1, 2, 3])
        for scenario in ("recur-50", "cost-tiny", "steady-heavy"):
            self.assertEqual(self.rounds(scenario, "static", Rank.COMPARED), [1, 2, 3])

    def test_what_is_only_shown_runs_once(self):
        self.assertEqual(self.rounds("sleepers-64", "static", Rank.COMPARED), [1])
        self.assertEqual(self.rounds("burst-mid", "jemalloc", Rank.SHOWN), [1])
        self.assertEqual(self.rounds("cost-mid", "jemalloc", Rank.SHOWN), [])
        self.assertEqual(self.rounds("recur-50", "flush", Rank.COMPARED), [])
        self.assertEqual(self.rounds("recur-100", "flush", Rank.COMPARED), [1])
        self.assertEqual(self.rounds("redis", "hybrid", Rank.JUDGED), [1])

    def test_every_promise_has_its_scenarios(self):
        self.assertLessEqual({"P2", "P3", "P5"}, {s.promise for s in BY_NAME.values()})
        judged = [s for s in BY_NAME.values() if s.kind == "recur" and 50 <= s.gap_ms <= 1000]
        self.assertGreaterEqual(len(judged), 5)

    def test_usage_errors_are_one_line(self):
        with contextlib.redirect_stderr(io.StringIO()) as said, mock.patch("sys.argv", ["run.py", "--only", "x"]):
            self.assertEqual(command.main(), 2)
        self.assertEqual(said.getvalue().count("\n"), 1)


if __name__ == "__main__":
    unittest.main()
