"""Records: what is written is read back, what is damaged is named in one line, and the levels found are right."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOLS = os.environ.get("TIDEMALLOC_TOOLS", str(Path(__file__).resolve().parents[2] / "tools"))
if TOOLS not in sys.path:
    sys.path.insert(0, TOOLS)

from tide import levels, series  # noqa: E402  the tool under test, by the path above

MIB = 1 << 20
HEADER = {
    "pid": 7, "command": ["redis-server", "--port", "0"], "allocator": "tidemalloc", "mode": "hybrid",
    "started": "2026-01-01T00:00:00+00:00", "interval_ms": 20, "page_bytes": 4096,
}  # fmt: skip
STATS = {"allocated_bytes": 5 * MIB, "retained_bytes": MIB, "patience_ns": 0}


def memory(rss):
    return {"rss": rss, "pss": rss - 4096, "private_dirty": rss // 2, "anon_huge": 0, "lazy_free": 0, "swap": 0}


class FileCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tide-test-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "record.jsonl")

    def recorder(self, form="jsonl"):
        recorder = series.Recorder(self.path, HEADER, form, list(STATS))
        self.addCleanup(recorder.close)
        return recorder

    def text(self):
        return Path(self.path).read_text()

    def refused(self, content, words):
        Path(self.path).write_bytes(content if isinstance(content, bytes) else content.encode())
        with self.assertRaises(series.BadFile) as caught:
            series.load(self.path)
        self.assertIn(words, str(caught.exception))
        self.assertIn(self.path, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(caught.exception.status, 7)


class WrittenAndRead(FileCase):
    def test_json_lines(self):
        with self.recorder() as recorder:
            recorder.sample(0.0, memory(8 * MIB), 1.25)
            recorder.sample(20.04, memory(9 * MIB), 2.5, STATS)
            recorder.event(15.0, "flush", given=4096)
            recorder.end(30.0, {"exit_status": 3}, sampling_ms=0.5)
        record = series.load(self.path)
        self.assertEqual(record.header, {"tide_record": 1, **HEADER})
        self.assertEqual([(s.t_ms, s.rss, s.pss, s.cpu_ms) for s in record.samples],
                         [(0.0, 8 * MIB, 8 * MIB - 4096, 1.25), (20.0, 9 * MIB, 9 * MIB - 4096, 2.5)])  # fmt: skip
        self.assertEqual([s.stats for s in record.samples], [None, STATS])
        self.assertEqual(record.samples[1].figure("retained_bytes"), MIB)
        self.assertIsNone(record.samples[1].figure("no such"))
        self.assertEqual(record.events, [{"t_ms": 15.0, "event": "flush", "given": 4096}])
        self.assertEqual((record.end, record.end_ms, record.sampling_ms), ({"exit_status": 3}, 30.0, 0.5))
        self.assertFalse(record.truncated)
        self.assertEqual(record.duration_ms, 30.0)

    def test_every_line_is_an_object_that_stands_alone(self):
        recorder = self.recorder()
        for i in range(5):
            recorder.sample(i, memory(MIB), None, STATS)
            self.assertTrue(self.text().endswith("\n"))
            self.assertEqual(len(series.load(self.path).samples), i + 1)
        self.assertEqual(len([json.loads(line) for line in self.text().splitlines()]), 6)

    def test_a_program_that_becomes_another(self):
        with self.recorder() as recorder:
            recorder.sample(0, memory(MIB))
            recorder.became(1, ["same"], "tidemalloc", "hybrid")
            recorder.became(2, ["other", "x"], "glibc", None)
            recorder.became(3, ["other", "x"], "glibc", None)
        self.assertEqual(len(self.text().splitlines()), 3)
        record = series.load(self.path)
        found = [record.header[key] for key in ("command", "allocator", "mode", "pid")]
        self.assertEqual((found, record.events), ([["other", "x"], "glibc", None, 7], []))

    def test_csv(self):
        with self.recorder("csv") as recorder:
            recorder.sample(0.0, memory(8 * MIB), 1.0)
            recorder.event(1.0, "flush", given=1)
            recorder.sample(20.0, memory(9 * MIB), 2.0, STATS)
            recorder.end(30.0, {"exit_status": 0})
        self.assertEqual(self.text().splitlines()[0],
                         "t_ms,rss,pss,private_dirty,anon_huge,lazy_free,swap,cpu_ms," + ",".join(STATS))  # fmt: skip
        record = series.load(self.path)
        found = [(sample.t_ms, sample.rss, sample.stats) for sample in record.samples]
        self.assertEqual(found, [(0.0, 8 * MIB, None), (20.0, 9 * MIB, STATS)])

    def test_figures_without_limit_are_cut_to_what_can_be_read(self):
        with self.recorder() as recorder:
            recorder.sample(0, memory(MIB), 0, {"patience_ns": (1 << 64) - 1})
        self.assertEqual(series.load(self.path).samples[0].stats, {"patience_ns": (1 << 63) - 1})

    def test_an_older_file_stays_until_there_is_something_to_write(self):
        Path(self.path).write_text("old\n")
        recorder = series.Recorder(self.path)
        self.addCleanup(recorder.close)
        self.assertEqual(self.text(), "old\n")
        recorder.begin(HEADER)
        self.assertNotIn("old", self.text())

    def test_discard_takes_away_only_what_it_made(self):
        series.Recorder(self.path).discard()
        self.assertFalse(os.path.exists(self.path))
        Path(self.path).write_text("old\n")
        series.Recorder(self.path).discard()
        self.assertEqual(self.text(), "old\n")

    def test_moments_are_sorted(self):
        with self.recorder() as recorder:
            for t_ms in (0, 40, 20):
                recorder.sample(t_ms, memory(MIB))
                recorder.event(t_ms, "busy")
        record = series.load(self.path)
        self.assertEqual([s.t_ms for s in record.samples], [0, 20, 40])
        self.assertEqual([e["t_ms"] for e in record.events], [0, 20, 40])


class Interrupted(FileCase):
    def test_a_last_line_that_is_not_whole_is_left_out(self):
        with self.recorder() as recorder:
            for t_ms in range(3):
                recorder.sample(t_ms, memory(MIB))
        whole = self.text()
        for cut in range(whole.rindex("\n", 0, -1) + 2, len(whole)):
            Path(self.path).write_text(whole[:cut])
            record = series.load(self.path)
            self.assertTrue(record.truncated)
            self.assertEqual(len(record.samples), 2)

    def test_a_full_disk_leaves_whole_lines(self):
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from tide import series\n"
            "r = series.Recorder(sys.argv[2], {'command': [], 'allocator': 'glibc'})\n"
            "try:\n"
            "    for t in range(100000): r.sample(t, {'rss': 1 << 20})\n"
            "except OSError as problem: print(problem.errno, r.samples, r.failed)\n"
        )
        limit = 50_001  # in the middle of a line
        result = subprocess.run(
            [sys.executable, "-c", code, TOOLS, self.path], capture_output=True, text=True, timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        number, samples, failed = result.stdout.split()
        self.assertEqual((int(number), failed), (27, "True"), result)  # EFBIG
        record = series.load(self.path)
        self.assertFalse(record.truncated)
        self.assertEqual(len(record.samples), int(samples))
        self.assertGreater(os.path.getsize(self.path), limit - 200)

    def test_a_writer_that_is_killed_leaves_whole_lines(self):
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from tide import series\n"
            "r = series.Recorder(sys.argv[2], {'command': [], 'allocator': 'glibc'})\n"
            "t = 0\n"
            "while True: r.sample(t, {'rss': 1 << 20}); t += 1; t == 50 and print(flush=True)\n"
        )
        with subprocess.Popen([sys.executable, "-c", code, TOOLS, self.path], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        record = series.load(self.path)
        self.assertGreaterEqual(len(record.samples), 50)
        self.assertFalse(record.truncated)
        self.assertIsNone(record.end)


class Refused(FileCase):
    GOOD = '{"tide_record":1,"command":["x"],"allocator":"glibc","mode":null}\n'
    SAMPLE = '{"t_ms":0,"rss":1,"pss":1,"private_dirty":1,"anon_huge":0,"lazy_free":0,"swap":0}\n'

    def test_foreign_files(self):
        foreign = ("", "\n", "hello\n", "[1]\n", "{}\n", '{"a":1}\n', b"\x7fELF\x02\x00\xff", b"\xff\n", "[" * 100_000)
        for content in foreign:
            self.refused(content, "not a record of tide")

    def test_another_version(self):
        self.refused('{"tide_record":2}\n', "version 2")
        self.refused('{"tide_record":"\\u001b[31m"}\n', "version")

    def test_nothing_in_it(self):
        self.refused(self.GOOD, "no sample")
        self.refused(self.GOOD + self.SAMPLE[:-1], "no sample")
        self.refused(self.GOOD[:-1], "first line")

    def test_damaged_lines(self):
        for line in ("nonsense", "3", "null", "{", '{"t_ms":0}', '{"t_ms":true}', '{"rss":1}', '{"t_ms":NaN}',
                     '{"t_ms":0,"event":5}', '{"t_ms":0,"event":"x","given":-1}', '{"t_ms":0,"event":"x","a":{}}',
                     '{"t_ms":0,"end":5}', '{"t_ms":-1,"end":{}}', '{"t_ms":1e999}',
                     self.SAMPLE.strip().replace('"rss":1', '"rss":"1"'),
                     self.SAMPLE.strip().replace('"rss":1', '"rss":-1'),
                     self.SAMPLE.strip().replace('"rss":1', f'"rss":{1 << 64}'),
                     self.SAMPLE.strip().replace('"swap":0', '"swap":0,"stats":[]'),
                     self.SAMPLE.strip().replace('"swap":0', '"swap":0,"stats":{"x":null}')):  # fmt: skip
            with self.subTest(line=line):
                self.refused(self.GOOD + self.SAMPLE + line + "\n", "line 3")

    def test_damaged_headers(self):
        for header in ('"command":5', '"command":[5]', '"allocator":{}', '"mode":7', '"pid":"x"', '"interval_ms":[]'):
            with self.subTest(header=header):
                self.refused(f'{{"tide_record":1,{header}}}\n' + self.SAMPLE, "line 1")

    def test_damaged_csv(self):
        head = "t_ms,rss,pss,private_dirty,anon_huge,lazy_free,swap,cpu_ms\n"
        self.refused("t_ms,rss\n1,2\n", "column")
        self.refused(head, "no sample")
        for row in ("1,2,3", "x,1,1,1,1,1,1,1", "0,-1,1,1,1,1,1,1", "0,nan,1,1,1,1,1,1", "0,,1,1,1,1,1,1"):
            with self.subTest(row=row):
                self.refused(head + "0,1,1,1,1,1,1,1\n" + row + "\n", "line 3")

    def test_a_folder_and_a_file_that_is_not_there(self):
        with self.assertRaises(OSError):
            series.load(os.path.dirname(self.path))
        with self.assertRaises(OSError):
            series.load(self.path)

    def test_names_cannot_reach_the_terminal(self):
        hostile = os.path.join(os.path.dirname(self.path), "a\033[2Jb\u202e.jsonl")
        Path(hostile).write_text("no\n")
        with self.assertRaises(series.BadFile) as caught:
            series.load(hostile)
        self.assertTrue(str(caught.exception).isprintable(), caught.exception)

    def test_random_damage_is_read_or_refused(self):
        with self.recorder() as recorder:
            for t_ms in range(6):
                recorder.sample(t_ms, memory(MIB * (1 + t_ms)), 1.0, STATS)
            recorder.event(2, "hold", given=1, hold_ms=2.5, text="x")
            recorder.end(7, {"signal": 9}, sampling_ms=1.0)
        good = Path(self.path).read_bytes()
        chance = random.Random(11)
        outcomes = {True: 0, False: 0}
        for _ in range(1500):
            data = bytearray(good)
            for _ in range(chance.choice((1, 1, 2, 8))):
                at = chance.randrange(len(data) or 1)
                kind = chance.randrange(4)
                if kind == 0 and data:
                    data[at] = chance.randrange(256)
                elif kind == 1:
                    del data[at : at + chance.randrange(1, 30)]
                elif kind == 2:
                    data[at:at] = chance.choice((b"{", b"9" * 30, b"null", b"[]", b'"', b"\n", b"-", b"e400", b"\0"))
                else:
                    data = data[: max(1, at)]
            Path(self.path).write_bytes(bytes(data))
            try:
                series.summarize(series.load(self.path))
                outcomes[True] += 1
            except series.BadFile:
                outcomes[False] += 1
        self.assertGreater(min(outcomes.values()), 100, outcomes)


def made(levels, events=(), end=None, interval_ms=20.0, stats=None):
    """A Series of (seconds, first MiB, last MiB, share of a processor) pieces."""
    samples, t_ms, cpu_ms = [], 0.0, 0.0
    for length_s, first, last, share in levels:
        steps = int(length_s * 1000 / interval_ms)
        for i in range(steps):
            level = int((first + (last - first) * i / steps) * MIB)
            values = None if stats is None else stats(level)
            names = tuple(values) if values else ()
            samples.append(series.Sample(t_ms, [level] * 6, cpu_ms, names, list(values.values()) if values else None))
            t_ms += interval_ms
            cpu_ms += share * interval_ms
    return series.Series(dict(HEADER), samples, list(events), end, end_ms=t_ms)


BURST = [(1, 8, 8, 0.002), (2, 8, 170, 0.9), (1, 170, 170, 0.002), (0.1, 170, 12, 0.8), (3, 12, 12, 0.002)]


class Levels(unittest.TestCase):
    def mib(self, value):
        return None if value is None else round(value / MIB, 1)

    def test_a_burst(self):
        summary = series.summarize(made(BURST))
        self.assertEqual((self.mib(summary.baseline), self.mib(summary.idle), self.mib(summary.end)), (8.0, 12.0, 12.0))
        self.assertAlmostEqual(self.mib(summary.peak), 170.0, delta=2)
        self.assertEqual([p.name for p in summary.phases], ["baseline", "work 1", "quiet 1", "work 2", "idle"])
        self.assertAlmostEqual(summary.phases[0].to_ms, 1000, delta=60)
        self.assertAlmostEqual(summary.phases[1].to_ms, 3000, delta=150)
        self.assertAlmostEqual(summary.phases[4].from_ms, 4100, delta=150)
        self.assertAlmostEqual(summary.cpu_ms, 1900, delta=40)
        for before, after in zip(summary.phases, summary.phases[1:]):
            self.assertEqual(before.to_ms, after.from_ms)

    def test_mean_over_time(self):
        record = made([(1, 10, 10, 0), (1, 30, 30, 0)])
        self.assertAlmostEqual(series.summarize(record).mean / MIB, 20, delta=0.3)
        record.samples = [series.Sample(t, [v] * 6) for t, v in ((0, 100), (90, 0), (100, 0))]
        self.assertEqual(series.summarize(record).mean, 90)

    def test_no_growth(self):
        summary = series.summarize(made([(3, 50, 50.4, 0.9)]))
        self.assertFalse(summary.grew)
        self.assertIsNone(summary.idle)
        self.assertAlmostEqual(summary.baseline / MIB, 50.2, delta=0.1)
        self.assertEqual([p.name for p in summary.phases], ["steady"])

    def test_never_at_rest(self):
        summary = series.summarize(made([(1, 8, 8, 0), (2, 8, 90, 0.9)]))
        self.assertTrue(summary.grew)
        self.assertIsNone(summary.idle)
        self.assertEqual(self.mib(summary.baseline), 8.0)

    def test_quiet_before_the_growth_is_not_rest(self):
        summary = series.summarize(made([(5, 8, 8, 0), (1, 8, 90, 0.9)]))
        self.assertIsNone(summary.idle)

    def test_a_process_on_its_way_out_is_not_rest(self):
        record = made(BURST, end={"exit_status": 0})
        record.samples[-1] = series.Sample(record.samples[-1].t_ms, [MIB] * 6, record.samples[-1].cpu_ms)
        summary = series.summarize(record)
        self.assertEqual((self.mib(summary.idle), self.mib(summary.end)), (12.0, 1.0))

    def test_work_after_the_rest_leaves_it_the_last_rest(self):
        summary = series.summarize(made([*BURST, (0.2, 12, 14, 0.9)]))
        self.assertEqual(self.mib(summary.idle), 12.0)
        self.assertEqual(summary.phases[-1].name, "work 3")

    def test_slow_giving_back_counts_where_it_ends(self):
        summary = series.summarize(made([(1, 8, 8, 0), (1, 8, 100, 0.9), (2, 100, 20, 0.001), (2, 20, 20, 0)]))
        self.assertEqual(self.mib(summary.idle), 20.0)

    def test_attached_at_a_height(self):
        summary = series.summarize(made([(1, 160, 160, 0), (1, 10, 10, 0), (1, 10, 170, 0.9), (1, 30, 30, 0)]))
        self.assertEqual(self.mib(summary.baseline), 10.0)

    def test_a_light_load_is_work_too(self):
        summary = series.summarize(made([(1, 8, 8, 0), (1, 8, 60, 0.9), (3, 60, 60, 0.15)]))
        self.assertIsNone(summary.idle)

    def test_processor_time_that_is_not_known(self):
        record = made(BURST)
        for sample in record.samples:
            sample.cpu_ms = None
        summary = series.summarize(record)
        self.assertIsNone(summary.cpu_ms)
        self.assertEqual(self.mib(summary.idle), 12.0)

    def test_after_flush(self):
        events = [{"t_ms": 4050, "event": "flush", "given": 1}, {"t_ms": 6000.0, "event": "busy"}]
        self.assertEqual(self.mib(series.summarize(made(BURST, events)).after_flush), 12.0)
        self.assertIsNone(series.summarize(made(BURST)).after_flush)
        early = [{"t_ms": 1500.0, "event": "flush", "given": 1}, {"t_ms": 1540.0, "event": "busy"}]
        self.assertGreater(series.summarize(made(BURST, early)).after_flush, 40 * MIB)
        beyond = [{"t_ms": 1e6, "event": "flush", "given": 1}]
        self.assertIsNone(series.summarize(made(BURST, beyond)).after_flush)
        self.assertEqual(self.mib(series.summarize(made(BURST, events + beyond)).after_flush), 12.0)

    def test_many_bursts_have_few_phases(self):
        bursts = [(0.5, 8, 8, 0)] + 30 * [(0.3, 8, 90, 0.9), (1.0, 10, 10, 0)]
        summary = series.summarize(made(bursts))
        self.assertLessEqual(len(summary.phases), levels.MOST_PHASES)
        self.assertEqual(summary.phases[-1].name, "idle")
        self.assertIn("29 quiet spells", summary.phases[1].name)

    def test_statistics_at_rest(self):
        summary = series.summarize(made(BURST, stats=lambda rss: {"allocated_bytes": rss - MIB, "retained_bytes": 5}))
        self.assertEqual(summary.at_idle["allocated_bytes"], 11 * MIB)
        self.assertGreater(summary.at_peak["allocated_bytes"], 160 * MIB)
        self.assertEqual(summary.phases[-1].retained, 5)

    def test_one_sample(self):
        summary = series.summarize(made([(0.02, 8, 8, 0)]))
        self.assertEqual((self.mib(summary.baseline), self.mib(summary.peak), self.mib(summary.end)), (8, 8, 8))


if __name__ == "__main__":
    unittest.main()
