"""Tests of what the verdicts rest on: python3 -m unittest discover -s bench."""

import tempfile
import unittest
from pathlib import Path

import allocators
import report
from measure import Sample

BINDING = "  1:\tbinding file {} [0] to {} [0]: normal symbol `{}' [GLIBC_2.2.5]\n"


def samples(*walls: float | None, peak_kib: int = 1000) -> list[Sample | None]:
    return [Sample(wall, wall / 2, peak_kib, "same") if wall else None for wall in walls]


def results(ours: list[Sample | None], peer: list[Sample | None]) -> report.Results:
    row = {"glibc": samples(2.0, 2.0, 2.0), "mimalloc": peer, "tide": ours}
    return report.Results({"one": row}, list(row), "wall")


class Ratios(unittest.TestCase):
    def test_pairs_runs_of_the_same_round(self):
        # The machine was ten times slower in the second round: the ratio does not see it.
        self.assertAlmostEqual(report.ratio(samples(1.0, 10.0, 1.1), samples(2.0, 20.0, 2.2), "wall"), 0.5)

    def test_leaves_out_rounds_that_failed(self):
        self.assertAlmostEqual(report.ratio(samples(1.0, None), samples(2.0, 2.0), "wall"), 0.5)
        self.assertIsNone(report.ratio(samples(None), samples(1.0), "wall"))


class Verdicts(unittest.TestCase):
    def holds(self, found: report.Results) -> list[bool]:
        return [one["holds"] for one in found.verdicts()]

    def test_hold_when_every_goal_is_met(self):
        self.assertEqual(self.holds(results(samples(0.9, 0.9, 0.9), samples(1.0, 1.0, 1.0))), [True, True, True])

    def test_five_percent_faster_is_asked_for(self):
        self.assertEqual(self.holds(results(samples(0.96, 0.96, 0.96), samples(1.0, 1.0, 1.0))), [False, True, True])

    def test_a_benchmark_far_behind_its_best_peer(self):
        self.assertEqual(self.holds(results(samples(1.11, 1.11, 1.11), samples(1.0, 1.0, 1.0))), [False, False, True])

    def test_a_higher_peak(self):
        found = results(samples(0.9, 0.9, 0.9, peak_kib=1001), samples(1.0, 1.0, 1.0))
        self.assertEqual(self.holds(found), [True, True, False])

    def test_a_failed_run_is_not_a_promise_kept(self):
        row = {"glibc": samples(2.0), "mimalloc": samples(1.0), "tide": samples(0.5)}
        broken = row | {"tide": samples(None)}
        found = report.Results({"good": row, "broken": broken}, list(row), "wall")
        self.assertEqual(self.holds(found), [False, False, True])


class Bindings(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.debug = Path(self.directory.name) / "debug.1"
        self.library = Path(self.directory.name) / "libx.so"
        self.allocator = allocators.Allocator("x", self.library, "")

    def check(self, *lines: tuple[object, object, str]) -> None:
        self.debug.write_text("".join(BINDING.format(*line) for line in lines))
        allocators.check_bindings(self.allocator, [self.debug])

    def test_accepts_the_allocator(self):
        self.check(("/bin/a", self.library, "malloc"), ("/bin/a", "/lib/libc.so.6", "puts"))

    def test_accepts_a_detour_through_the_program(self):
        self.check(("/bin/a", self.library, "free"), ("/lib/libc.so.6", "/bin/a", "free"))

    def test_rejects_another_library(self):
        with self.assertRaisesRegex(allocators.AllocatorError, "free of a is bound to libc.so.6"):
            self.check(("/bin/a", self.library, "malloc"), ("/bin/a", "/lib/libc.so.6", "free"))

    def test_rejects_a_program_with_a_malloc_of_its_own(self):
        with self.assertRaises(allocators.AllocatorError):
            self.check(("/lib/libc.so.6", "/bin/a", "malloc"))

    def test_rejects_silence(self):
        with self.assertRaises(allocators.AllocatorError):
            self.check(("/bin/a", "/lib/libc.so.6", "puts"))


class Markers(unittest.TestCase):
    def test_replaces_only_what_is_between(self):
        with tempfile.TemporaryDirectory() as directory:
            page = Path(directory) / "page.md"
            page.write_text(f"before\n{report.MARKERS[0]}\nold\n{report.MARKERS[1]}\nafter\n")
            report.insert_between_markers(page, "new")
            self.assertEqual(page.read_text(), f"before\n{report.MARKERS[0]}\nnew\n{report.MARKERS[1]}\nafter\n")


if __name__ == "__main__":
    unittest.main()
