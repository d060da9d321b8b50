"""A process seen through /proc: what it is, what it holds, and what is said when it cannot be looked at."""

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import time
import unittest

from fake_window import MIB

from tide import process as processes
from tide import status

# The main thread ends, another one stays and says so.
HEADLESS = """
import ctypes, sys, threading, time
main = threading.main_thread()
def stay():
    while open(f"/proc/self/task/{main.native_id}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(60)
threading.Thread(target=stay).start()
ctypes.CDLL(None).pthread_exit(None)
"""


# A second thread that is called like the keeper.
RENAMED = """
import ctypes, threading
def keeper():
    ctypes.CDLL(None).prctl(15, b"tide-keeper")
    print("ready", flush=True)
    threading.Event().wait()
threading.Thread(target=keeper, daemon=True).start()
input()
"""


class ProcessCase(unittest.TestCase):
    def child(self, *command, **options):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)

        def end():
            child.kill()
            child.communicate()

        self.addCleanup(end)
        return child

    def look(self, pid):
        process = processes.Process(pid)
        self.addCleanup(process.close)
        return process

    @contextlib.contextmanager
    def assert_error(self, expected, words):
        with self.assertRaises(processes.ProcessError) as caught:
            yield
        self.assertEqual(caught.exception.status, expected, caught.exception)
        self.assertIn(words, str(caught.exception))


class Itself(ProcessCase):
    def setUp(self):
        self.me = self.look(os.getpid())

    def test_names(self):
        with open("/proc/self/comm") as file:
            self.assertEqual(self.me.name, file.read().rstrip("\n"))
        child = self.child("sleep", "60", executable="/bin/sleep")
        time.sleep(0.05)
        self.assertEqual(self.look(child.pid).command_line(), "sleep 60")

    def test_age(self):
        age = self.me.age_ms()
        time.sleep(0.05)
        self.assertGreaterEqual(self.me.age_ms(), age + 50)
        child = self.child("sleep", "60")
        self.assertLess(self.look(child.pid).age_ms(), 5000)

    def test_memory(self):
        before = self.me.rollup()
        memory = mmap.mmap(-1, 16 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.write(b"x" * 16 * MIB)
        after = self.me.rollup()
        for name in ("rss", "pss", "pss_anon", "private_dirty"):
            self.assertAlmostEqual(after[name] - before[name], 16 * MIB, delta=2 * MIB, msg=name)
        for name in ("anon_huge", "lazy_free", "swap", "shared_clean", "private_clean", "anonymous"):
            self.assertIn(name, after)
        memory.close()

    def test_processor_time(self):
        before = self.me.cpu_ns()
        end = time.process_time_ns() + 30_000_000
        while time.process_time_ns() < end:
            pass
        self.assertGreaterEqual(self.me.cpu_ns() - before, 30_000_000)
        self.assertAlmostEqual(self.me.cpu_ns(), time.process_time_ns(), delta=50_000_000)

    def test_threads(self):
        self.assertIn(os.getpid(), [tid for tid, _ in self.me.threads()])

    def test_who_holds_it_open_is_not_fooled(self):
        child = self.child("sleep", "60")
        process = self.look(child.pid)
        self.assertTrue(process.alive())
        child.kill()
        child.wait()
        self.assertFalse(process.alive())
        self.assertEqual(process.threads(), [])
        for look in (process.rollup, process.cpu_ns, process.command_line, process.uses_tidemalloc):
            with self.assert_error(status.NO_PROCESS, str(child.pid)):
                look()

    def test_states(self):
        child = self.child("sleep", "60")
        process = self.look(child.pid)
        self.assertFalse(process.stopped())
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        self.assertTrue(process.stopped())
        self.assertTrue(process.alive())

    def test_main_thread_that_has_ended(self):
        child = self.child(sys.executable, "-c", HEADLESS)
        self.assertEqual(child.stdout.readline(), "ready\n")
        process = self.look(child.pid)
        self.assertTrue(process.alive())
        self.assertGreater(process.rollup()["rss"], MIB)
        self.assertFalse(process.uses_tidemalloc())


class Refusals(ProcessCase):
    def test_no_such_process(self):
        for pid in (0, -1, 2**22 + 1):
            with self.subTest(pid=pid), self.assert_error(status.NO_PROCESS, f"no process {pid}"):
                processes.Process(pid)

    def test_zombie(self):
        child = self.child("true")
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with self.assert_error(status.NO_PROCESS, "has ended"):
            processes.Process(child.pid)

    def test_thread_is_no_process(self):
        child = self.child(sys.executable, "-c", HEADLESS)
        self.assertEqual(child.stdout.readline(), "ready\n")
        tid = max(tid for tid, _ in self.look(child.pid).threads())
        with self.assert_error(status.NO_PROCESS, f"{tid} is a thread of process {child.pid}"):
            processes.Process(tid)

    @unittest.skipUnless(os.getuid() == 0, "only root has processes of another user at hand")
    def test_other_user(self):
        child = self.child("sleep", "60")
        os.seteuid(65534)
        try:
            with self.assert_error(status.NOT_PERMITTED, "belongs to another user (uid 0)"):
                processes.Process(child.pid)
            self.assertNotIn(child.pid, [process.pid for process in processes.processes_on_tidemalloc()])
        finally:
            os.seteuid(0)
        self.look(child.pid)

    @unittest.skipUnless(os.getuid() == 0, "only root can become two users at once")
    def test_set_user_id_process(self):
        """The user who started it is not enough: what it runs as counts as well."""
        for ids in ((65534, 0, 0), (0, 65534, 0), (65534, 65534, 0)):
            change = f"import os; os.setresuid{ids}; print('ready', flush=True); input()"
            child = self.child(sys.executable, "-c", change)
            self.assertEqual(child.stdout.readline(), "ready\n")
            os.seteuid(65534)
            try:
                with self.subTest(ids=ids), self.assert_error(status.NOT_PERMITTED, "belongs to another user"):
                    processes.Process(child.pid)
            finally:
                os.seteuid(0)

    def test_nothing_stays_open(self):
        before = len(os.listdir("/proc/self/fd"))
        for pid in (2**22 + 1, os.getpid()):
            with contextlib.suppress(processes.ProcessError), processes.Process(pid):
                pass
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class Hostile(ProcessCase):
    def test_names_cannot_reach_the_terminal(self):
        rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\x1b[2J) Z\\n\\xff'); print('ready'); input()"
        child = self.child(sys.executable, "-u", "-c", rename, "\x1b[31m\n")
        self.assertEqual(child.stdout.readline(), "ready\n")
        process = self.look(child.pid)
        self.assertTrue(process.name.startswith("?[2J) Z?"), process.name)
        for text in (process.name, process.command_line(), *(name for _, name in process.threads())):
            self.assertTrue(text.isprintable(), text)
        self.assertGreater(process.age_ms(), -1)


class OnTidemalloc(ProcessCase):
    def test_mapping_of_the_library(self):
        for name, uses in {
            "libtidemalloc.so": True,
            "libtidemalloc.so.0.1": True,
            "libtidemalloc-count.so": True,
            "libtidemalloc.so.txt": False,
            "notlibtidemalloc.so": False,
            "libc.so.6": False,
        }.items():
            line = f"7f00-7f01 r-xp 00000000 fe:00 1    /usr/lib/{name}\n"
            for text in (line, line.replace("\n", " (deleted)\n")):
                with self.subTest(text=text):
                    self.assertEqual(bool(processes._TIDEMALLOC_MAPPING.search(text.encode())), uses)

    def test_named_mapping_of_a_static_program(self):
        text = b"10000-20000 rw-p 00000000 00:00 0    [anon:tidemalloc: heap]\n"
        self.assertTrue(processes._TIDEMALLOC_MAPPING.search(text))
        self.assertFalse(processes._TIDEMALLOC_MAPPING.search(text.replace(b"tide", b"ride")))

    def test_named_thread_where_mappings_have_no_names(self):
        child = self.child(sys.executable, "-c", RENAMED)
        self.assertEqual(child.stdout.readline(), "ready\n")
        self.assertTrue(self.look(child.pid).uses_tidemalloc())
        found = processes.processes_on_tidemalloc()
        for process in found:
            self.addCleanup(process.close)
        self.assertIn(child.pid, [process.pid for process in found])
        self.assertNotIn(1, [process.pid for process in found])


if __name__ == "__main__":
    unittest.main()
