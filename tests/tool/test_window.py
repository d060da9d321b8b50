"""The window of a process, asked by tide: right answers are read right, wrong ones refused, and none is waited for
without end.

The process is played by a thread (fake_window.py), or by a Python program that holds what looks like a window."""

import contextlib
import fcntl
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import unittest

from fake_window import CLASSES, FLUSHED, MIB, REGIONS, THREADS, TOTALS, TOOLS, FakeKeeper, sealed_memfd

from tide import process as processes
from tide import status, window


class WindowCase(unittest.TestCase):
    def setUp(self):
        self.fake = FakeKeeper()
        self.addCleanup(self.fake.close)
        self.window = self.fake.open()
        self.addCleanup(self.window.close)

    @contextlib.contextmanager
    def assert_error(self, expected, words):
        with self.assertRaises(processes.ProcessError) as caught:
            yield
        self.assertEqual(caught.exception.status, expected, caught.exception)
        self.assertIn(words, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))


class Answers(WindowCase):
    def test_statistics(self):
        before = time.monotonic_ns()
        seen = self.window.stats()
        self.assertTrue(before <= seen.at_ns <= time.monotonic_ns())
        self.assertEqual(seen.totals, TOTALS)
        self.assertEqual(seen.classes[0], window.ClassFigures(*CLASSES[0][:7], "tiny", "performance"))
        self.assertEqual(seen.classes[1].tier, "mid")
        self.assertEqual(len(seen.classes), len(CLASSES))
        self.assertEqual(seen.threads[0], window.ThreadFigures(os.getpid(), "bound", "own", *THREADS[0][3:]))
        self.assertEqual((seen.threads[1].state, seen.threads[1].claim), ("orphan", "marked"))
        self.assertEqual(seen.threads_left_out, 0)

    def test_many_threads(self):
        self.fake.threads = [(number, 1, 0, 1, 2, 3, 4, 5) for number in range(766)]
        self.fake.left_out = 77
        seen = self.window.stats()
        self.assertEqual([thread.tid for thread in seen.threads], list(range(766)))
        self.assertEqual(seen.threads_left_out, 77)

    def test_later_library_appends(self):
        def append(fake, _):
            struct.pack_into("<II", fake.map, window.STATS_AT, 4, 8 + 8 * len(window.TOTALS) + 80)
            struct.pack_into("<II", fake.map, window.THREADS_AT, 1, 128)

        self.fake.spoil = append
        seen = self.window.stats()
        self.assertEqual(seen.totals, TOTALS)
        self.assertEqual((len(seen.threads), seen.threads[0].tid), (1, os.getpid()))

    def test_earlier_library_has_no_state_of_classes(self):
        self.fake.spoil = lambda fake, _: struct.pack_into("<II", fake.map, window.CLASSES_AT, 1, 64)
        self.assertIsNone(self.window.stats().classes[0].state)

    def test_flush(self):
        report = self.window.flush()
        self.assertEqual(
            (report.returned_bytes, report.kept_bytes, report.pinned_bytes, report.missed_bytes), FLUSHED
        )
        self.assertGreater(report.elapsed_ms, 0)
        self.assertEqual(self.fake.asked, [(window.FLUSH, 7)])
        self.window.flush({"mid"})
        self.window.flush(["large", "tiny", "tiny"])
        self.assertEqual(self.fake.asked[1:], [(window.FLUSH, 2), (window.FLUSH, 5)])

    def test_slices(self):
        self.assertEqual([(region.base, region.kinds) for region in self.window.slices()], REGIONS)

    def test_slices_in_several_answers(self):
        long = bytes(number % 6 for number in range(window.MOST_KINDS + 5))
        self.fake.regions = [(1 << 40, b"\2" * 7), (2 << 40, long), (3 << 40, b"\4")]
        self.assertEqual([(region.base, region.kinds) for region in self.window.slices()], self.fake.regions)
        self.assertGreater(len(self.fake.asked), 1)

    def test_numbers_of_requests_wrap(self):
        struct.pack_into("<II", self.fake.map, 20, 0xFFFFFFFF, 0xFFFFFFFF)
        self.assertEqual(self.window.stats().totals, TOTALS)
        self.assertEqual(self.fake.word(20), 0)

    def test_every_request_rings(self):
        before = self.fake.word(16)
        self.window.stats()
        self.window.flush()
        self.assertEqual(self.fake.word(16), before + 2)

    def test_nothing_is_left_behind(self):
        self.window.stats()
        self.assertGreater(self.fake.resident_answer_bytes(), 0)
        self.window.close()
        self.assertEqual(self.fake.resident_answer_bytes(), 0)
        self.window.close()  # once is enough, twice does no harm

    def test_two_askers_take_turns(self):
        self.fake.delay_s = 0.002
        others, failures = [self.fake.open() for _ in range(3)], []

        def ask(asker, flushes):
            try:
                for _ in range(20):
                    if flushes:
                        got = asker.flush(timeout_s=5).returned_bytes
                        if got != FLUSHED[0]:
                            failures.append(got)
                    elif asker.stats(timeout_s=5).totals != TOTALS:
                        failures.append("stats")
            except processes.ProcessError as problem:
                failures.append(problem)

        threads = [threading.Thread(target=ask, args=(asker, index % 2)) for index, asker in enumerate(others)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for asker in others:
            asker.close()
        self.assertEqual(failures, [])
        self.assertEqual(len(self.fake.asked), 60)


class Silence(WindowCase):
    """Whatever the process does or leaves undone, the asker comes back."""

    def test_no_answer(self):
        self.fake.answering = False
        with self.assert_error(status.NO_KEEPER, "did not answer within 0.1 s"):
            self.window.stats(timeout_s=0.1)

    def test_who_leaves_leaves_nothing_locked(self):
        """Also with the error still in somebody's hands, and so everything that it refers to."""
        self.fake.answering = False
        leaving = self.fake.open()
        with self.assertRaises(processes.ProcessError) as kept:
            leaving.stats(timeout_s=0.01)
        error = kept.exception.with_traceback(kept.exception.__traceback__)
        leaving.close()
        self.fake.answering = True
        self.assertEqual(self.window.stats(timeout_s=5).totals, TOTALS)
        self.assertIsNotNone(error)

    def test_an_answer_that_came_too_late_is_nobody_elses(self):
        self.fake.answering = False
        with self.assert_error(status.NO_KEEPER, "did not answer"):
            self.window.flush(timeout_s=0.01)
        self.fake.answering = True
        self.assertEqual(self.window.stats(timeout_s=5).totals, TOTALS)

    def test_locked_by_somebody(self):
        holder = os.open(f"/proc/self/fd/{self.fake.descriptor}", os.O_RDWR)
        self.addCleanup(os.close, holder)
        fcntl.flock(holder, fcntl.LOCK_EX)
        with self.assert_error(status.NO_KEEPER, "others keep asking"):
            self.window.stats()
        fcntl.flock(holder, fcntl.LOCK_UN)
        self.assertEqual(self.window.stats(timeout_s=5).totals, TOTALS)

    def sleeper(self):
        child = subprocess.Popen(["sleep", "60"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        process = processes.Process(child.pid)
        self.addCleanup(process.close)
        self.fake.answering = False
        watched = self.fake.open(process)
        self.addCleanup(watched.close)
        return child, watched

    def test_process_that_is_stopped(self):
        child, watched = self.sleeper()
        child.send_signal(signal.SIGSTOP)
        with self.assert_error(status.NO_KEEPER, "is stopped"):
            watched.stats(timeout_s=30)

    def test_process_that_is_killed_while_it_is_asked(self):
        child, watched = self.sleeper()
        killer = threading.Timer(0.1, child.kill)
        killer.start()
        with self.assert_error(status.NO_PROCESS, "has ended"):
            watched.stats(timeout_s=30)
        killer.join()

    def test_error_of_the_process(self):
        self.fake.error = 22
        with self.assert_error(status.FAILED, "Invalid argument"):
            self.window.stats(timeout_s=5)


class Nonsense(WindowCase):
    """Answers that cannot be right end in one line, not in a crash or in endless memory."""

    def spoil(self, form, at, *values):
        self.fake.spoil = lambda fake, _: struct.pack_into(form, fake.map, at, *values)

    def test_statistics_of_another_size(self):
        right = 8 + 8 * len(window.TOTALS)
        for version, size in ((0, right), (2, right), (3, 8), (3, right - 8), (3, 0xFFFFFFFF), (3, 4096)):
            with self.subTest(version=version, size=size):
                self.spoil("<II", window.STATS_AT, version, size)
                with self.assert_error(status.BAD_FILE, "statistics"):
                    self.window.stats(timeout_s=5)

    def test_tables_beyond_their_room(self):
        for at, count, entry in (
            (window.CLASSES_AT, 0xFFFFFFFF, 64),
            (window.CLASSES_AT, 128, 64),
            (window.CLASSES_AT, 114, 72),
            (window.CLASSES_AT, 1, 0),
            (window.CLASSES_AT, 1, 65),
            (window.CLASSES_AT, 1, 0xFFFFFFF8),
            (window.THREADS_AT, 768, 64),
            (window.THREADS_AT, 766, 4096),
            (window.THREADS_AT, 1, 8),
        ):
            with self.subTest(at=at, count=count, entry=entry):
                self.spoil("<II", at, count, entry)
                with self.assert_error(status.BAD_FILE, "a table of"):
                    self.window.stats(timeout_s=5)

    def test_states_that_do_not_exist(self):
        self.fake.threads = [(1, 99, 2**64 - 1, 0, 0, 0, 0, 0)]
        self.fake.classes = [(16, 0, 0, 0, 0, 0, 0, 3, 9)]
        seen = self.window.stats(timeout_s=5)
        self.assertEqual(seen.threads[0].state, "unknown-99")
        self.assertEqual((seen.classes[0].tier, seen.classes[0].state), ("unknown-3", "unknown-9"))

    def test_slices_beyond_their_room(self):
        for values in (
            (window.MOST_REGIONS + 1,),
            (2**64 - 1,),
            (1, 0, 0, window.MOST_KINDS + 1),
            (1, 0, 0, 2**63),
            (2, 0, 0, window.MOST_KINDS, 0, window.MOST_KINDS, 1),
            (1, 0, 5, 1),
        ):
            with self.subTest(values=values):
                self.spoil(f"<{len(values)}Q", window.SLICES_AT, *values)
                with self.assert_error(status.BAD_FILE, "cannot be read"):
                    self.window.slices(timeout_s=5)

    def test_slices_without_an_end(self):
        def one_more(fake, _):
            skip = struct.unpack_from("<Q", fake.map, 32)[0]
            struct.pack_into("<QQQQ", fake.map, window.SLICES_AT, 1, 0, skip, window.MOST_KINDS)

        self.fake.spoil = one_more
        self.addCleanup(setattr, window, "MOST_ANSWERS", window.MOST_ANSWERS)
        window.MOST_ANSWERS = 4
        self.assertEqual(len(self.window.slices(timeout_s=5)[0].kinds), 4 * window.MOST_KINDS)

    def test_whatever_stands_there(self):
        """Noise over the answers: figures or one error, but nothing else."""
        noise = random.Random(1)
        places = (4096, 4100, 8192, 8196, 16384, 16388, 65536, 65544, 65560)

        def spoil(fake, _):
            for at in noise.sample(places, 3):
                length = noise.choice((1, 2, 4, 8, 300))
                fake.map[at : at + length] = noise.choice((noise.randbytes(length), b"\xff" * length, bytes(length)))

        self.fake.spoil = spoil
        self.addCleanup(setattr, window, "MOST_ANSWERS", window.MOST_ANSWERS)
        window.MOST_ANSWERS = 4
        refused = 0
        for _ in range(150):
            for ask in (self.window.stats, self.window.flush, self.window.slices):
                try:
                    ask(timeout_s=5)
                except processes.ProcessError as problem:
                    self.assertEqual(problem.status, status.BAD_FILE)
                    refused += 1
        self.assertGreater(refused, 50)

    def test_memory_that_is_taken_away(self):
        """The process punches a hole where the answer was: zeros, which are no statistics."""
        self.fake.spoil = lambda fake, _: fake.map.madvise(mmap.MADV_REMOVE, 4096, window.FILE_BYTES - 4096)
        with self.assert_error(status.BAD_FILE, "statistics"):
            self.window.stats(timeout_s=5)


class Headers(unittest.TestCase):
    assert_error = WindowCase.assert_error

    def header(self, **changes):
        fields = {"magic": b"tidewin\0", "version": 1, "file_bytes": window.FILE_BYTES, "event_bytes": 40} | changes
        data = bytearray(4096)
        data[0:8] = fields["magic"]
        struct.pack_into("<II", data, 8, fields["version"], fields["file_bytes"])
        struct.pack_into("<I", data, 72, fields["event_bytes"])
        return bytes(data)

    def open(self, data, **memfd):
        descriptor = sealed_memfd(**memfd)
        os.pwrite(descriptor, data, 0)
        return window.Window(descriptor, os.getpid())

    def test_right_header(self):
        self.open(self.header()).close()

    def test_wrong_headers(self):
        for changes, words in (
            ({"magic": b"elsewin\0"}, "not one of tidemalloc's"),
            ({"version": 2}, "version 2, this tide reads version 1"),
            ({"version": 0}, "version 0"),
            ({"file_bytes": 4096}, "layout"),
            ({"event_bytes": 48}, "layout"),
        ):
            with self.subTest(changes=changes), self.assert_error(status.BAD_FILE, words):
                self.open(self.header(**changes))

    def test_header_that_never_comes(self):
        with self.assert_error(status.NO_KEEPER, "no keeper"):
            self.open(bytes(4096))

    def test_size_that_can_change(self):
        for seals in (0, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW):
            with self.subTest(seals=seals), self.assert_error(status.BAD_FILE, "sealed"):
                self.open(self.header(), seals=seals)

    def test_wrong_size(self):
        for size in (4096, 2 * window.FILE_BYTES):
            with self.subTest(size=size), self.assert_error(status.BAD_FILE, "bytes long"):
                self.open(self.header()[: min(size, 4096)], size=size, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)

    def test_sealed_against_writing(self):
        with self.assert_error(status.BAD_FILE, "cannot be read"):
            self.open_written()

    def open_written(self):
        descriptor = sealed_memfd()
        os.pwrite(descriptor, self.header(), 0)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        return window.Window(descriptor, os.getpid())

    def test_not_a_memfd(self):
        with self.assert_error(status.BAD_FILE, "cannot be read"):
            window.Window(os.open("/dev/null", os.O_RDWR), os.getpid())


class Events(WindowCase):
    def test_each_is_told_once(self):
        self.assertEqual(self.window.events(), [])
        self.fake.event(2, given=5 * MIB)
        self.fake.event(3, given=MIB, argument=400_000_000)
        first = self.window.events()
        told = [(event.kind, event.given_bytes, event.argument) for event in first]
        self.assertEqual(told, [("flush", 5 * MIB, 0), ("hold", MIB, 400_000_000)])
        self.assertEqual([event.number for event in first], [0, 1])
        self.fake.event(4, argument=7)
        self.assertEqual([event.kind for event in self.window.events()], ["busy"])
        self.assertEqual(self.window.events(), [])
        self.assertEqual(self.window.lost, 0)

    def test_who_comes_late_gets_the_last_ones(self):
        for number in range(200):
            self.fake.event(5, given=number)
        late = self.fake.open()
        self.addCleanup(late.close)
        self.assertEqual([event.given_bytes for event in late.events()], list(range(200 - window.EVENTS_KEPT, 200)))
        self.assertEqual(late.lost, 0)

    def test_lost_ones_are_counted(self):
        for number in range(100):
            self.fake.event(5, given=number)
        self.assertEqual(len(self.window.events()), window.EVENTS_KEPT)
        self.assertEqual(self.window.lost, 100 - window.EVENTS_KEPT)

    def test_one_that_is_not_written_yet(self):
        self.fake.event(2, number=0)
        self.assertEqual(self.window.events(), [])
        struct.pack_into("<Q", self.fake.map, window.EVENT_RING_AT, 1)
        self.assertEqual(len(self.window.events()), 1)
        self.assertEqual(self.window.lost, 0)

    def test_one_that_was_overwritten(self):
        self.fake.event(2, number=65)
        self.fake.event(3)
        self.assertEqual([event.kind for event in self.window.events()], ["hold"])
        self.assertEqual(self.window.lost, 1)

    def test_one_that_is_overwritten_while_it_is_read(self):
        """Its number is right still, but the writer has come round: what was read may be half of another."""
        for number in range(3):
            self.fake.event(5, given=number)

        class Slow:
            def __getitem__(_, place):
                data = self.fake.map[place]
                if place.start == window.EVENT_RING_AT:
                    struct.pack_into("<Q", self.fake.map, 64, window.EVENT_RING_LENGTH)
                return data

            def close(_):
                real.close()

        real, self.window._map = self.window._map, Slow()
        self.assertEqual([event.number for event in self.window.events()], [1, 2])
        self.assertEqual(self.window.lost, 1)

    def test_nonsense(self):
        self.fake.event(250)
        self.assertEqual(self.window.events()[0].kind, "unknown-250")
        struct.pack_into("<Q", self.fake.map, 64, 2**64 - 1)
        self.assertEqual(self.window.events(), [])
        struct.pack_into("<Q", self.fake.map, 64, 0)
        self.assertEqual(self.window.events(), [])


# A program with a thread called tide-keeper and files as the arguments say. It maps a file called libtidemalloc.so.
PRETENDER = f"""
import ctypes, fcntl, mmap, os, struct, sys, tempfile, threading
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
sys.path.insert(0, {TOOLS!r})
import fake_window
what = sys.argv[1:]
held = []
if "library" in what:
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "libtidemalloc.so")
    with open(path, "w+b") as file:
        file.truncate(4096)
        held.append(mmap.mmap(file.fileno(), 4096))
    os.unlink(path)
    os.rmdir(folder)
if "unsealed" in what:
    held.append(fake_window.sealed_memfd(seals=0))
if "othername" in what:
    held.append(fake_window.sealed_memfd(name="other"))
if "device" in what:
    held.append(os.open("/dev/null", os.O_RDWR))
if "garbage" in what:
    held.append(fake_window.sealed_memfd())
    os.pwrite(held[-1], b"garbage!" * 512, 0)
if "inherited" in what:
    held.append(fake_window.FakeKeeper(process_id=1))
if "right" in what:
    held.append(fake_window.FakeKeeper())
def keeper():
    if "nokeeper" not in what:
        ctypes.CDLL(None).prctl(15, b"tide-keeper")
    print("ready", flush=True)
    threading.Event().wait()
threading.Thread(target=keeper, daemon=True).start()
sys.stdin.read()
"""


class Opening(unittest.TestCase):
    """From a process id to its window."""

    assert_error = WindowCase.assert_error

    def pretender(self, *what):
        child = subprocess.Popen(
            [sys.executable, "-B", "-c", PRETENDER, *what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def end():
            child.kill()
            child.communicate()

        self.addCleanup(end)
        self.assertEqual(child.stdout.readline(), "ready\n")
        process = processes.Process(child.pid)
        self.addCleanup(process.close)
        return process

    def test_right_window(self):
        with window.Window.open(self.pretender("library", "device", "right")) as found:
            self.assertEqual(found.stats(timeout_s=10).totals, TOTALS)

    def test_right_window_beside_wrong_ones(self):
        process = self.pretender("library", "unsealed", "garbage", "inherited", "right")
        with window.Window.open(process) as found:
            self.assertEqual(found.process_id, process.pid)

    def test_program_on_another_allocator(self):
        with self.assert_error(status.NOT_TIDEMALLOC, "does not run on tidemalloc"):
            window.Window.open(self.pretender("nokeeper"))

    def test_no_keeper(self):
        with self.assert_error(status.NO_KEEPER, "TIDE_KEEPER=off"):
            window.Window.open(self.pretender("library", "nokeeper", "right"))

    def test_files_that_are_no_windows_are_left_alone(self):
        with self.assert_error(status.NO_KEEPER, "no keeper"):
            window.Window.open(self.pretender("library", "unsealed", "othername", "device"))

    def test_window_of_somebody_else(self):
        with self.assert_error(status.NO_KEEPER, "no keeper"):
            window.Window.open(self.pretender("library", "inherited"))

    def test_garbage(self):
        with self.assert_error(status.BAD_FILE, "not one of tidemalloc's"):
            window.Window.open(self.pretender("library", "garbage"))

    def test_process_that_has_ended(self):
        process = self.pretender("library", "right")
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self.assert_error(status.NO_PROCESS, "has ended"):
            window.Window.open(process)

    def test_no_descriptor_is_left_open(self):
        process = self.pretender("library", "unsealed", "garbage", "inherited", "right")
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            window.Window.open(process).close()
        with contextlib.suppress(processes.ProcessError):
            window.Window.open(self.pretender("library", "garbage", "inherited"))
        # The second child's pipes and directory.
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), len(before) + 3)

    @unittest.skipUnless(os.getuid() == 0, "only root can make a file of another user")
    def test_memfd_of_another_user(self):
        """A window made by nobody, in the hands of a process of root: not its own, so it is not opened."""
        process = self.pretender("library", "right")
        process.uids = {12345}
        with window.Window.open(process):
            pass  # root's file: the process may have had root's rights before
        seen = window.os.fstat

        def fstat(descriptor):
            found = seen(descriptor)
            values = list(found)
            values[4] = 54321
            return os.stat_result(values)

        window.os.fstat = fstat
        self.addCleanup(setattr, window.os, "fstat", seen)
        with self.assert_error(status.NO_KEEPER, "no keeper"):
            window.Window.open(process)


if __name__ == "__main__":
    unittest.main()
